#!/bin/sh
# Builds Traefik and prints the folder that holds it, with the definitions of the Gateway API in crds/.
#
# To change a version: `./build.sh source FOLDER` writes what is built to a new folder; `go get` and `go mod tidy` there, and
# copy go.mod and go.sum back.
set -eu

name=ingress
traefik=github.com/traefik/traefik/v3
gateway_api=sigs.k8s.io/gateway-api
lego=github.com/go-acme/lego/v5

cd "$(dirname "$0")"
. ../go-build.sh

# This module, and beside it Traefik's ACME client without its DNS providers (dns/dns.go says why).
write_source() {
    version=$(sed -n "s|^	$lego \(v[^ ]*\).*|\1|p" go.mod)
    # The module cache is read-only, and a copy of it must not be.
    from=$(cd / && go mod download -json "$lego@$version" | sed -n 's/^	"Dir": "\(.*\)",$/\1/p') &&
        mkdir -p "$1" &&
        cp -R go.mod go.sum ext "$1/" &&
        cp -R "$from" "$1/lego" &&
        chmod -R u+w "$1/lego" &&
        rm -rf "$1/lego/providers/dns" "$1/lego/cmd" "$1/lego/e2e" &&
        mkdir "$1/lego/providers/dns" &&
        cp dns/dns.go "$1/lego/providers/dns/"
}

build() {
    CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$1/traefik" $traefik/cmd/traefik >&2 &&
        mkdir "$1/crds" &&
        # Traefik reads a version of TCPRoute that only the experimental channel serves.
        install -m 644 "$(go list -m -f '{{.Dir}}' $gateway_api)"/config/crd/experimental/gateway.networking.k8s.io_*.yaml "$1/crds/"
}

# Joined by hand: the caller looks at the result, and then the shell does not stop at a failure.
compile() {
    say "building Traefik into $1 (once, some minutes; kept for the next time)"
    write_source "$1/source" && (cd "$1/source" && build "$1") && rm -rf "$1/source"
}

require_go
if [ "${1:-}" = source ]; then
    write_source "$2"
else
    cached go.mod go.sum build.sh dns/dns.go ext/go.mod ext/ext.go
fi
