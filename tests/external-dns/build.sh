#!/bin/sh
# Builds external-dns and prints the folder that holds it.
set -eu

name=external-dns
module=sigs.k8s.io/external-dns

cd "$(dirname "$0")"
. ../go-build.sh

compile() {
    version=$(go list -m -f '{{.Version}}' $module)
    say "building $version into $1 (once, some minutes; kept for the next time)"
    CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X $module/pkg/apis/externaldns.Version=$version" -o "$1/external-dns" $module >&2
}

require_go
cached go.mod go.sum build.sh
