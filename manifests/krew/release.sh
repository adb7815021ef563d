#!/bin/sh
# Writes the archives and the manifest of the krew plugin.
#
#   release.sh VERSION RELEASE HOMEPAGE TARGET...    where each TARGET is ARCH=PROGRAM
#
# RELEASE is the address of the folder that the archives will be downloaded from. Platforms without a program are left out.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
version=$1 release=$2 homepage=$3
shift 3

out=${KREW_OUT:-$root/target/krew}
rm -rf "$out"
mkdir -p "$out"
manifest=$out/arpeggio.yaml
sed -e '/^#/d' -e "s|\${VERSION}|$version|" -e "s|\${HOMEPAGE}|$homepage|" "$here/arpeggio.yaml" >"$manifest"

for target in "$@"; do
    arch=${target%%=*} program=${target#*=}
    archive=arpeggio-$version-linux-$arch.tar.gz
    staged=$(mktemp -d)
    cp "$program" "$staged/arpeggio"
    cp "$root/LICENSE" "$staged/LICENSE"
    tar --owner=0 --group=0 --numeric-owner --sort=name --mtime=@0 -C "$staged" -cf - LICENSE arpeggio | gzip -n >"$out/$archive"
    rm -r "$staged"
    sum=$(sha256sum "$out/$archive" | cut -d' ' -f1)
    sed -i -e "s|\${URI_$arch}|$release/$archive|" -e "s|\${SHA256_$arch}|$sum|" "$manifest"
done

# A platform for which nothing was built: from its selector to the next one.
awk '/^    - selector:/ { if (kept !~ /\${/) printf "%s", kept; kept = "" ; inside = 1 }
     inside { kept = kept $0 "\n"; next } { print }
     END { if (kept !~ /\${/) printf "%s", kept }' "$manifest" >"$manifest.new"
mv "$manifest.new" "$manifest"
echo "the archives and the manifest are in $out" >&2
