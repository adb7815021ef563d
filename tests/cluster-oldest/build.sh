#!/bin/sh
# Builds kube-apiserver of the oldest Kubernetes that Arpeggio supports and prints the folder that holds it. etcd and kubectl
# come with the cluster of today.
set -eu

name=cluster-oldest
kubernetes_version=v1.29.15
expected="1700 and 3 minutes"

cd "$(dirname "$0")"
. ../go-build.sh

# The program is called as the component is, so that the lab knows it by its name.
compile() { build_kubernetes "$1" . && mv "$1/cluster-oldest" "$1/kube-apiserver"; }

require_go
cached go.mod go.sum build.sh ./*.go
