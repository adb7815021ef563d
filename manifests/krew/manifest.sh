#!/bin/sh
# Prints the manifest for krew: manifest.sh VERSION RELEASE HOMEPAGE FOLDER. FOLDER has the archives, RELEASE is the address at
# which they can be had. A processor without an archive is left out.
set -eu

version=$1
release=$2
homepage=$3
folder=$4

sed -e '/^#/d' -e "s|\${VERSION}|v$version|" -e "s|\${HOMEPAGE}|$homepage|" "$(dirname "$0")/arpeggio.yaml"
for pair in amd64:amd64 arm64:arm64 armv7:arm; do
    archive=arpeggio-$version-linux-${pair%%:*}.tar.gz
    [ -f "$folder/$archive" ] || continue
    cat <<END
    - selector:
        matchLabels: {os: linux, arch: ${pair##*:}}
      uri: "$release/$archive"
      sha256: "$(sha256sum "$folder/$archive" | cut -d ' ' -f 1)"
      bin: arpeggio
END
done
