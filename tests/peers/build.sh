#!/bin/sh
# Builds what Arpeggio is measured beside (MetalLB's controller and speaker) and prints the folder that holds them, with the
# definitions of their custom resources in crds/. Kept in the user's cache under a key of the sources and the Go version.
# Progress goes to stderr, the folder alone to stdout.
set -eu

metallb=go.universe.tf/metallb

cd "$(dirname "$0")"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/arpeggio/peers

say() { echo "peers: $*" >&2; }

key() {
    { go env GOVERSION GOARCH; cat go.mod go.sum build.sh; } | sha256sum | cut -c 1-16
}

compile() {
    say "building $(go list -m $metallb) into $1 (once, about two minutes; kept for the next time)"
    # Joined by hand: the caller looks at the result, and then the shell does not stop at a failure.
    CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$1/metallb-controller" $metallb/controller >&2 &&
        CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$1/metallb-speaker" $metallb/speaker >&2 &&
        mkdir "$1/crds" &&
        # The module cache is read-only, and a copy of it must not be.
        install -m 644 "$(go list -m -f '{{.Dir}}' $metallb)"/config/crd/bases/*.yaml "$1/crds/"
}

command -v go >/dev/null || {
    say "Go is missing: install Go 1.26 or later, then run this again"
    exit 1
}
target=$cache/$(key)
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ ! -d "$target" ]; then
    rm -rf "$cache"/*.partial
    mkdir "$target.partial"
    compile "$target.partial" || {
        say "the build failed, its messages are above; run it again if a download failed: what is there is kept"
        exit 1
    }
    mv "$target.partial" "$target"
    # Older keys are of no use to anybody any more.
    find "$cache" -mindepth 1 -maxdepth 1 -type d ! -path "$target" -exec rm -rf {} +
fi
echo "$target"
