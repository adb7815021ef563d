#!/bin/sh
# Builds a program from crates.io at the version given and prints its path: `rust-tool.sh mdbook 0.5.4`.
#
# Kept in the user's cache, so that a second call is instant. Progress goes to stderr, the path alone to stdout. A version is
# never changed on crates.io, and --locked takes the dependencies that its authors have built it with.
set -eu

name=$1
version=$2
cd "$(dirname "$0")"
. ./cache.sh
kept=$cache/tools/$name-$version

make_it() {
    say "building $version into $kept (once, some minutes; kept for the next time)"
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
    trap 'exit 130' INT TERM
    # From a folder of its own: what this repository asks of its own packages is not meant for others.
    (cd "$build" && env -u RUSTFLAGS CARGO_TARGET_DIR="$build" cargo install --quiet --locked --root "$1" --version "$version" "$name") >&2
}

once "$kept" "bin/$name"
echo "$kept/bin/$name"
