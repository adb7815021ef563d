#!/bin/sh
# Installs Arpeggio from this tree on the server, and puts a page behind an address. Speakers follow as nodes join.
set -eu

kubectl() { k3s kubectl "$@"; }

kubectl apply -f /tmp/install.yaml
kubectl wait --for condition=Established --timeout 1m customresourcedefinition/addresspools.arpeggio.dev
kubectl rollout status --namespace arpeggio-system --timeout 5m daemonset/arpeggio-speaker
kubectl apply -f /tmp/page.yaml
