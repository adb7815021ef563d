#!/bin/sh
# Packs the program `arpeggio` for downloads and for krew: bundle.sh PROGRAM LICENCES ARCHIVE. The same files give the
# same archive.
set -eu

program=$1
licences=$2
archive=$3
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
install -m 755 "$program" "$folder/arpeggio"
cp -r "$licences" "$folder/licenses"
tar --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=go=rX --directory "$folder" . |
    gzip --no-name --best >"$archive"
