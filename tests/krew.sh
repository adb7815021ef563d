#!/bin/sh
# Holds the manifest of the krew plugin against krew's own checker, with archives that stand for the real ones.
set -eu

cd "$(dirname "$0")/.."
checker=$(tests/krew/build.sh)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
for processor in amd64 arm64 armv7; do
    echo "not really an archive" >"$work/arpeggio-$version-linux-$processor.tar.gz"
done
manifests/krew/manifest.sh "$version" https://example.org/release https://example.org "$work" >"$work/arpeggio.yaml"
"$checker/validate-krew-manifest" -skip-install -manifest "$work/arpeggio.yaml"

# A checker that lets everything pass would check nothing.
sed 's/shortDescription:.*/shortDescription: ""/' "$work/arpeggio.yaml" >"$work/broken.yaml"
mkdir "$work/broken" && mv "$work/broken.yaml" "$work/broken/arpeggio.yaml"
if "$checker/validate-krew-manifest" -skip-install -manifest "$work/broken/arpeggio.yaml" 2>/dev/null; then
    echo "krew's checker has let a manifest without a description pass" >&2
    exit 1
fi
