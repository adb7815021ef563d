#!/bin/sh
# Builds the program that holds WebSocket and HTTP/3 connections, and prints the folder that holds it.
set -eu

name=streams

cd "$(dirname "$0")"
. ../go-build.sh

compile() {
    say "building the program for long connections into $1 (once; kept for the next time)"
    CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$1/streams" . >&2
}

require_go
cached go.mod go.sum build.sh ./*.go
