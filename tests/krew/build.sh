#!/bin/sh
# Builds the checker of krew's manifests, and prints the folder that holds it.
set -eu

name=krew
module=sigs.k8s.io/krew

cd "$(dirname "$0")"
. ../go-build.sh

compile() {
    say "building $(go list -m $module) into $1 (once, less than a minute; kept for the next time)"
    CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$1/" $module/cmd/validate-krew-manifest >&2
}

require_go
cached go.mod go.sum build.sh
