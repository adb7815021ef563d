#!/bin/sh
# Fetches Kafka, which is written in Java, and prints the folder that holds it: what pom.xml names, in libs/. What it needs of
# Debian's packages is installed first.
set -eu

name=kafka

cd "$(dirname "$0")"
. ../go-build.sh

compile() {
    say "fetching Kafka into $1 (once, 54 MB; kept for the next time)"
    mvn --batch-mode --quiet --file pom.xml "-Dfolder=$1/libs" package >&2
}

../lab/setup.sh packages.txt
require_go
cached pom.xml build.sh
