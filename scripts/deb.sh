#!/bin/sh
# Makes a Debian package in target/debian: the program, its manual pages, completions, licences and the model that comes
# with it. Needs cargo-deb (`cargo install cargo-deb --locked`), to which arguments go.
set -eu
cd "$(dirname "$0")/.."
cargo build --locked --release
program=${CARGO_TARGET_DIR:-target}/release/rhn
rm -rf target/packaged
mkdir -p target/packaged
"$program" man target/packaged/man
"$program" completions bash > target/packaged/rhn.bash
"$program" completions zsh > target/packaged/_rhn
"$program" completions fish > target/packaged/rhn.fish
cargo deb --no-build --locked "$@"
