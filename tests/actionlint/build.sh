#!/bin/sh
# Builds actionlint, which checks GitHub's workflows, and prints the folder that holds it.
set -eu

name=actionlint
module=github.com/rhysd/actionlint

cd "$(dirname "$0")"
. ../go-build.sh

compile() {
    say "building $(go list -m $module) into $1 (once, less than a minute; kept for the next time)"
    CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$1/actionlint" $module/cmd/actionlint >&2
}

require_go
cached go.mod go.sum build.sh
