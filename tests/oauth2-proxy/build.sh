#!/bin/sh
# Builds OAuth2 Proxy and prints the folder that holds it.
set -eu

name=oauth2-proxy
module=github.com/oauth2-proxy/oauth2-proxy/v7

cd "$(dirname "$0")"
. ../go-build.sh

compile() {
    say "building $(go list -m $module) into $1 (once, about two minutes; kept for the next time)"
    CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$1/oauth2-proxy" $module >&2
}

require_go
cached go.mod go.sum build.sh
