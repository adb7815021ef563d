#!/bin/sh
# Prints the folder that holds Debian's kernel of a suite (kernel.sh SUITE): `vmlinuz`, `version` and `lib/modules/VERSION`.
set -eu

suite=$1
name=machines/$suite

cd "$(dirname "$0")"
. ../go-build.sh

compile() {
    say "fetching Debian's kernel of $suite (once; kept for the next time)"
    ./fetch.sh "$suite" "$1"
}

require_go
cached kernel.sh fetch.sh
