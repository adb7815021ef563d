#!/bin/sh
# Prints the manifest for krew: krew.sh VERSION URL FOLDER. FOLDER has the archives that bundle.sh has written, URL is where
# they can be had.
set -eu

version=$1
url=$2
folder=$3

cat <<END
apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: arpeggio
spec:
  version: v$version
  homepage: ${url%/releases/*}
  shortDescription: See and explain the addresses of Services
  description: |
    Shows who announces which address of a Service of type LoadBalancer, explains why a Service has none, and spreads
    addresses over nodes. For clusters with Arpeggio, a load balancer for bare metal.
  platforms:
END
for pair in amd64:amd64 arm64:arm64 armv7:arm; do
    archive=arpeggio-$version-linux-${pair%%:*}.tar.gz
    sum=$(sha256sum "$folder/$archive" | cut -d ' ' -f 1)
    cat <<END
    - selector:
        matchLabels:
          os: linux
          arch: ${pair##*:}
      uri: $url/$archive
      sha256: $sum
      bin: arpeggio
END
done
