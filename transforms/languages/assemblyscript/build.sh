#!/bin/sh
# Builds the module in this folder into NAME.wasm, by the name and kind that module.toml says.
# The compiler comes from npm, into $HEADWATER_TOOLS; HEADWATER is the agent's program.
set -eu

tools=${HEADWATER_TOOLS:-.tools}
mkdir -p "$tools/build"
tools=$(cd "$tools" && pwd)
setting() { sed -n "s/^$1 *= *\"\(.*\)\".*/\1/p" module.toml; }
name=$(setting name)
kind=$(setting kind)

if [ ! -f "$name.ts" ]; then
    echo "module.toml: \`name\` is \"$name\", and there is no $name.ts: give both the same name" >&2
    exit 1
fi
if ! cmp -s package-lock.json "$tools/assemblyscript/node_modules/installed"; then
    echo "installing assemblyscript (100 MB) into $tools"
    npm --version >/dev/null 2>&1 || {
        echo "npm is missing: install Node.js 20 or later (Debian: nodejs and npm)" >&2
        exit 1
    }
    mkdir -p "$tools/assemblyscript"
    cp package.json package-lock.json "$tools/assemblyscript"
    npm ci --prefix "$tools/assemblyscript" --silent --no-fund --no-audit
    cp package-lock.json "$tools/assemblyscript/node_modules/installed"
fi

core=$tools/build/$name.wasm
"$tools/assemblyscript/node_modules/.bin/asc" "$name.ts" -O3 --runtime minimal \
    --use abort=headwater/call/abort -o "$core"
"${HEADWATER:-headwater}" module wrap "$core" --world "$kind" -o "$name.wasm"
