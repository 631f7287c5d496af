# Everyday commands; `just` alone lists them. The whole check is `.ci/run`.

modules := "--manifest-path transforms/Cargo.toml"

_list:
    @just --list --unsorted

# Watch it work: broker, sensors, agent, collector and a live page in one process
demo *arguments:
    cargo run -- demo {{ arguments }}

# The tests; with a filter, those whose names contain it
test *filter:
    cargo test --workspace {{ filter }}

# Windows and aggregates against their oracles, with so many random cases of each property
oracle cases="10000":
    PROPTEST_CASES={{ cases }} cargo test -p headwater-window

# Formatting, of the modules too, and lints
lint:
    cargo fmt --all --check
    cargo fmt --all --check {{ modules }}
    cargo clippy --workspace --all-targets -- -D warnings

# Format everything
fmt:
    cargo fmt --all
    cargo fmt --all {{ modules }}

# Licences, bans and sources of all dependencies
deny:
    cargo deny --workspace check bans licenses sources
    cargo deny {{ modules }} --workspace --config deny.toml check bans licenses sources

# Known vulnerabilities; fetches the advisory database
advisories:
    cargo deny --workspace check advisories
    cargo deny {{ modules }} --workspace --config deny.toml check advisories

# The binaries for a device and for the central side
release:
    cargo build --release -p headwater --no-default-features
    cargo build --release -p headwater-collector

# Break it again and again, and count what came of it: just soak --kills 1000 --cuts 200 --corruptions 200
soak *arguments:
    cargo run --release --bin soak -- {{ arguments }}

# Each language's examples, built, checked and measured for the reference's table; with the dependencies of the dev build
languages:
    cargo build
    .ci/languages
    cargo bench -p headwater-host --features author --bench languages --profile dev \
        --config profile.dev.package.headwater-host.opt-level=3 --config profile.dev.package.headwater-host.debug-assertions=false

# What hostile modules cost: until they are stopped, in memory, and the pipeline beside them
neighbour *arguments:
    cargo run --release -p headwater-tests --bin neighbour -- {{ arguments }}

# Check a configuration and its modules
check config="deploy/example.toml":
    cargo run -- check --config {{ config }}
