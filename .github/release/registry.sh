#!/bin/sh
# Prints a file of the release with the images of the registry that they were pushed to: registry.sh REGISTRY FILE. In the tree they are
# those of docker.io/arpeggio.
set -eu

registry=$1
file=$2

case $registry in
    *[!A-Za-z0-9./:_-]* | "")
        echo "registry: '$registry' is no registry" >&2
        exit 1
        ;;
esac
sed "s#docker\.io/arpeggio/#$registry/#g" "$file"
