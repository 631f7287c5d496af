#!/bin/sh
# Builds the module in this folder into NAME.wasm, by the name and kind that module.toml says.
# The tools come from npm, as package-lock.json pins them, into $HEADWATER_TOOLS.
set -eu

tools=${HEADWATER_TOOLS:-.tools}/javascript
setting() { sed -n "s/^$1 *= *\"\(.*\)\".*/\1/p" module.toml; }
name=$(setting name)
kind=$(setting kind)

if [ ! -f "$name.js" ]; then
    echo "module.toml: \`name\` is \"$name\", and there is no $name.js: give both the same name" >&2
    exit 1
fi
if ! command -v npm >/dev/null; then
    echo "npm is missing: install Node.js 18 or newer, https://nodejs.org (Debian: nodejs npm)" >&2
    exit 1
fi
mkdir -p "$tools/build"
tools=$(cd "$tools" && pwd)
if ! cmp -s package-lock.json "$tools/node_modules/pinned.json"; then
    echo "installing componentize-qjs (QuickJS as a component) and esbuild, 50 MB, into $tools"
    cp package.json package-lock.json "$tools"
    (cd "$tools" && npm install --ignore-scripts --no-audit --no-fund --loglevel=error)
    cp package-lock.json "$tools/node_modules/pinned.json"
fi
build=$(mktemp -d "$tools/build/XXXXXX")
trap 'rm -rf "$build"' EXIT

case $kind in
transform) others="process" ;;
aggregate) others="update, merge, finish" ;;
*) echo "module.toml: \`kind\` is \"$kind\": write \"transform\" or \"aggregate\"" >&2 && exit 1 ;;
esac

# componentize-qjs 0.4.5 has an `init` of its own, for the time of building: ours is called ini0 until that is over.
sed 's/export init:/export ini0:/' wit/headwater.wit >"$build/headwater.wit"
# Behind a fault, esbuild's program for Node.js names a place in itself, which is left off.
echo "export { init as ini0, $others } from \"./$name.js\"" |
    "$tools/node_modules/.bin/esbuild" --bundle --format=esm --target=es2023 --external:headwater:\* --log-level=warning \
        --log-override:import-is-undefined=error --sourcefile=exports.js --outfile="$build/bundle.js" 2>"$build/log" ||
    { sed '/^node:child_process/,$d' "$build/log" >&2 && exit 1; }
cat "$build/log" >&2
"$tools/node_modules/.bin/componentize-qjs" --sync --stub-wasi --wit "$build/headwater.wit" --world "$kind" \
    --js "$build/bundle.js" --output "$build/module.wasm" >"$build/log" 2>&1 || { cat "$build/log" >&2 && exit 1; }
node -e '
    const { readFileSync, writeFileSync } = require("fs");
    let wasm = readFileSync(process.argv[1], "latin1");
    const rename = (from, to) => {
        const at = wasm.lastIndexOf(`\x00\x04${from}\x01`);
        if (at < 0) throw new Error(`no export ${from}: this version of componentize-qjs is another one`);
        wasm = wasm.slice(0, at + 2) + to + wasm.slice(at + 6);
    };
    rename("init", "ini1");
    rename("ini0", "init");
    writeFileSync(process.argv[2], wasm, "latin1");
' "$build/module.wasm" "$name.wasm"
