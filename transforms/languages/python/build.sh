#!/bin/sh
# Builds the module in this folder into NAME.wasm, by the name and kind that module.toml says.
# The tools come from PyPI, as requirements.txt pins them, into $HEADWATER_TOOLS; what is more in requirements.txt
# becomes a part of the module, if it is Python alone.
set -eu

tools=${HEADWATER_TOOLS:-.tools}/python
setting() { sed -n "s/^$1 *= *\"\(.*\)\".*/\1/p" module.toml; }
name=$(setting name)
kind=$(setting kind)

if [ ! -f "$name.py" ]; then
    echo "module.toml: \`name\` is \"$name\", and there is no $name.py: give both the same name" >&2
    exit 1
fi
if ! { python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' && python3 -m pip --version; } >/dev/null 2>&1; then
    echo "python3 3.10 or newer with pip is missing: install it (Debian: python3 python3-pip)" >&2
    exit 1
fi
if ! python3 -c 'import sys; sys.exit(sys.argv[1] in sys.stdlib_module_names)' "$name"; then
    echo "module.toml: \`name\` is \"$name\", which is a module of Python's own: rename it here, and $name.py" >&2
    exit 1
fi
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
if ! cmp -s requirements.txt "$tools/packages/pinned.txt"; then
    echo "installing componentize-py (CPython as a component), 50 MB, into $tools"
    rm -rf "$tools/new" "$tools/packages"
    python3 -m pip install --quiet --no-compile --root-user-action=ignore --disable-pip-version-check \
        --target "$tools/new" --requirement requirements.txt
    cp requirements.txt "$tools/new/pinned.txt"
    mv "$tools/new" "$tools/packages"
fi
build=$(mktemp -d "$tools/build.XXXXXX")
trap 'rm -rf "$build"' EXIT

PYTHONPATH=$tools/packages "$tools/packages/bin/componentize-py" --quiet --wit-path wit --world "$kind" \
    componentize --stub-wasi --python-path . --python-path "$tools/packages" --output "$build/module.wasm" "$name" \
    >"$build/log" 2>&1 || { sed '/^Stack backtrace:/,$d' "$build/log" >&2 && exit 1; }
mv "$build/module.wasm" "$name.wasm"
