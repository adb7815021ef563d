#!/bin/sh
# Builds what Arpeggio is measured beside (MetalLB's controller and speaker) and prints the folder that holds them, with the
# definitions of their custom resources in crds/.
set -eu

name=peers
metallb=go.universe.tf/metallb

cd "$(dirname "$0")"
. ../go-build.sh

compile() {
    say "building $(go list -m $metallb) into $1 (once, about two minutes; kept for the next time)"
    # Joined by hand: the caller looks at the result, and then the shell does not stop at a failure.
    CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$1/metallb-controller" $metallb/controller >&2 &&
        CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$1/metallb-speaker" $metallb/speaker >&2 &&
        mkdir "$1/crds" &&
        # The module cache is read-only, and a copy of it must not be.
        install -m 644 "$(go list -m -f '{{.Dir}}' $metallb)"/config/crd/bases/*.yaml "$1/crds/"
}

require_go
cached go.mod go.sum build.sh
