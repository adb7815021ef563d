#!/bin/sh
# Builds the programs of an earlier commit and prints the folder that holds them. `earlier.sh chart` takes an earlier chart out of git instead,
# which takes no time.
#
# The commits are those that this release must work together with (docs/upgrades.md); they are named here and nowhere else: that of the
# programs had no chart.
# What was built is kept in the user's cache under the commit, so that a second call is instant. What both commits depend on
# is compiled once: this build has its own results, and shares the intermediate ones below `target`. Progress goes to stderr, the
# folder alone to stdout.
set -eu

what=${1:-programs}
case $what in
    programs) commit=fe0fcdca5dc20230c8b22571a7cc5b1f422ef223 ;;
    chart) commit=a1c93159e36f9b07a32febd270f452250bb2bf5f ;;
    *) echo "earlier: programs or chart, not $what" >&2; exit 2 ;;
esac

cd "$(dirname "$0")/.."
root=$PWD
name=earlier
. tests/cache.sh
kept=$cache/earlier/$commit

is_there() { git cat-file -e "$commit^{commit}" 2>/dev/null; }

# A clone that CI makes may have the last commit only.
require_commit() {
    git rev-parse --git-dir >/dev/null 2>&1 ||
        fail "this folder is no clone, and the $what of commit $commit is needed: clone the repository and run this again"
    is_there && return
    if [ "$(git rev-parse --is-shallow-repository)" = true ]; then
        say "this clone is shallow: fetching commit $commit"
        git fetch --quiet --depth=1 origin "$commit" >&2 || true
    fi
    is_there || fail "commit $commit is not in this clone and could not be fetched: fetch the whole history (git fetch --unshallow), then run this again"
}

if [ "$what" = chart ]; then
    require_commit
    # Not below the cache: it is there at once, and nobody else uses it.
    mkdir -p target/earlier-chart
    git archive "$commit" manifests/chart | tar -x -C target/earlier-chart
    echo "$root/target/earlier-chart/manifests/chart"
    exit 0
fi

make_it() {
    require_commit
    tree=$root/target/earlier/tree
    rm -rf "$tree"
    mkdir -p "$tree"
    git archive "$commit" | tar -x -C "$tree"
    host=$(rustc -vV | sed -n 's/^host: //p')
    say "building the programs of $commit (static, release; once; minutes where nothing else was built before)"
    # Panics end programs as in this release, and the whole workspace is selected: dependencies that were built otherwise could
    # not be shared.
    (
        cd "$tree"
        RUSTFLAGS="-C target-feature=+crt-static" CARGO_PROFILE_RELEASE_PANIC=abort \
            CARGO_BUILD_BUILD_DIR="$root/target" CARGO_TARGET_DIR="$root/target/earlier/build" \
            cargo build --workspace --release --locked --target "$host" \
            --bin arpeggio-controller --bin arpeggio-speaker --bin arpeggio >&2
    )
    for program in arpeggio-controller arpeggio-speaker arpeggio; do
        cp "$root/target/earlier/build/$host/release/$program" "$1/"
    done
    rm -rf "$root/target/earlier"
    # Those of other commits are of no use to anybody any more.
    find "$cache/earlier" -mindepth 1 -maxdepth 1 -type d ! -path "$1" -exec rm -rf {} +
}

once "$kept" arpeggio
echo "$kept"
