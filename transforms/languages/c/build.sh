#!/bin/sh
# Builds the module in this folder into NAME.wasm, by the name and kind that module.toml says.
# The compiler comes from PyPI, into $HEADWATER_TOOLS; HEADWATER is the agent's program.
set -eu

version=0.17.1
tools=${HEADWATER_TOOLS:-.tools}
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
setting() { sed -n "s/^$1 *= *\"\(.*\)\".*/\1/p" module.toml; }
name=$(setting name)
kind=$(setting kind)

if [ ! -f "$name.c" ]; then
    echo "module.toml: \`name\` is \"$name\", and there is no $name.c: give both the same name" >&2
    exit 1
fi
if [ ! -d "$tools/ziglang-$version" ]; then
    echo "installing ziglang $version (a C compiler with its C library, 410 MB) into $tools"
    python3 -m pip --version >/dev/null 2>&1 || {
        echo "python3 with pip is missing: install it (Debian: python3-pip)" >&2
        exit 1
    }
    rm -rf "$tools/ziglang.new"
    python3 -m pip install --quiet --no-compile --root-user-action=ignore --disable-pip-version-check \
        --target "$tools/ziglang.new" "ziglang==$version"
    mv "$tools/ziglang.new" "$tools/ziglang-$version"
fi
export ZIG_GLOBAL_CACHE_DIR="$tools/zig-cache" ZIG_LOCAL_CACHE_DIR="$tools/zig-cache"
mkdir -p "$tools/build"
core=$tools/build/$name.wasm

sources=
for helper in call field json memory number reject setting write "$kind"; do
    sources="$sources headwater/$helper.c"
done
# shellcheck disable=SC2086 # one word each
"$tools/ziglang-$version/ziglang/zig" cc --target=wasm32-wasi -mexec-model=reactor \
    -Wl,-z,stack-size=262144 -std=c23 -O2 -flto -Wall -Wextra -Wno-unused-parameter -I. "$name.c" $sources -s -o "$core"
"${HEADWATER:-headwater}" module wrap "$core" --world "$kind" -o "$name.wasm"
