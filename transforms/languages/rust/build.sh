#!/bin/sh
# Builds the module in this folder into NAME.wasm, by the name and kind that module.toml says.
# The compiler is rustup's; what cargo makes goes into $HEADWATER_TOOLS. HEADWATER is the agent's program.
set -eu

target=wasm32-unknown-unknown
tools=${HEADWATER_TOOLS:-.tools}
setting() { sed -n "s/^$1 *= *\"\(.*\)\".*/\1/p" module.toml; }
name=$(setting name)

if ! grep -q "^name = \"$name\"" Cargo.toml; then
    echo "module.toml: \`name\` is \"$name\", and Cargo.toml has another: give both the same name" >&2
    exit 1
fi

command -v cargo >/dev/null || {
    echo "cargo is missing: install Rust from https://rustup.rs" >&2
    exit 1
}
if [ ! -d "$(rustc --print target-libdir --target $target)" ]; then
    echo "installing Rust's standard library for $target"
    rustup target add $target || {
        echo "failed: install your distribution's package (Debian: libstd-rust-dev-wasm32)" >&2
        exit 1
    }
fi

cargo build --quiet --release --target $target --target-dir "$tools/target"
core=$tools/target/$target/release/$(echo "$name" | tr - _).wasm
"${HEADWATER:-headwater}" module wrap "$core" --world "$(setting kind)" -o "$name.wasm"
