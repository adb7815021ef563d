#!/bin/sh
# Puts the images into a registry under one name for all processors, signs them and attests what is in them:
# push.sh VERSION REGISTRY FOLDER. FOLDER has the archives and lists that `make images` has written, for each processor.
set -eu

version=$1
registry=$2
folder=$3

digest() { skopeo inspect --format '{{.Digest}}' "docker://$1"; }

for name in controller speaker forwarder; do
    image=$registry/$name
    parts=
    for arch in amd64 arm64 armv7; do
        archive=$folder/arpeggio-$name-$version-$arch
        skopeo copy --preserve-digests "oci-archive:$archive.tar" "docker://$image:$version-$arch"
        part=$image@$(digest "$image:$version-$arch")
        cosign sign --yes "$part"
        cosign attest --yes --type cyclonedx --predicate "$archive.cdx.json" "$part"
        parts="$parts $part"
    done
    # shellcheck disable=SC2086 # a list of words
    docker buildx imagetools create --tag "$image:$version" $parts
    # What was pushed last is what people pull: its digest is that of the list, not of one processor's image.
    list=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$image:$version")
    cosign sign --yes "$image@$list"
done
