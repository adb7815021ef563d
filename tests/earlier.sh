#!/bin/sh
# Builds the programs of an earlier commit and prints the folder that holds them.
#
# The commit is the one that this release must work together with (docs/upgrades.md). What was built is kept below
# `target`, so that a second call is instant. Progress goes to stderr, the folder alone to stdout.
set -eu

commit=fe0fcdca5dc20230c8b22571a7cc5b1f422ef223

cd "$(dirname "$0")/.."
root=$PWD
kept=$root/target/earlier/$commit

say() { echo "earlier: $*" >&2; }

if [ ! -x "$kept/arpeggio-speaker" ]; then
    git cat-file -e "$commit^{commit}" 2>/dev/null || {
        say "commit $commit is not in this clone: fetch the whole history (git fetch --unshallow), then run this again"
        exit 1
    }
    tree=$root/target/earlier/tree
    say "building the programs of $commit (static, release; some minutes, once)"
    git worktree remove --force "$tree" 2>/dev/null || true
    git worktree add --quiet --detach "$tree" "$commit"
    host=$(rustc -vV | sed -n 's/^host: //p')
    (
        cd "$tree"
        RUSTFLAGS="-C target-feature=+crt-static" CARGO_TARGET_DIR="$root/target/earlier/build" \
            cargo build --release --locked --target "$host" \
            --package arpeggio-controller --package arpeggio-speaker --package arpeggio-cli >&2
    )
    mkdir -p "$kept"
    for program in arpeggio-controller arpeggio-speaker arpeggio; do
        cp "$root/target/earlier/build/$host/release/$program" "$kept/"
    done
    git worktree remove --force "$tree"
fi
echo "$kept"
