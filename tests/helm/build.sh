#!/bin/sh
# Builds Helm, helm-docs and a check of the Prometheus Operator's objects, and prints the folder that holds them.
set -eu

name=helm

cd "$(dirname "$0")"
. ../go-build.sh

# What Helm's own releases set: without it, it takes every cluster for Kubernetes 1.20 where it asks none.
module=helm.sh/helm/v3
kubernetes=36
flags="-s -w -X $module/internal/version.version=v3.22.0"
for package in chartutil lint/rules; do
    flags="$flags -X $module/pkg/$package.k8sVersionMajor=1 -X $module/pkg/$package.k8sVersionMinor=$kubernetes"
done

compile() {
    say "building Helm into $1 (once, about two minutes; kept for the next time)"
    # Joined by hand: the caller looks at the result, and then the shell does not stop at a failure.
    CGO_ENABLED=0 go build -trimpath -ldflags "$flags" -o "$1/helm" $module/cmd/helm >&2 &&
        CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$1/helm-docs" github.com/norwoodj/helm-docs/cmd/helm-docs >&2 &&
        CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$1/operator-objects" ./operator-objects >&2
}

require_go
cached go.mod go.sum build.sh operator-objects/main.go
