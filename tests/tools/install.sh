#!/usr/bin/env bash
# Loads the images of `make images` into a local cluster, and installs or upgrades the chart: install.sh CLUSTER NAME [helm flags]
set -euo pipefail
cluster=$1 name=$2
shift 2
eval "$("$cluster" env "$name")"
"$cluster" load "$name" target/images/modelwright.tar target/images/modelwright-server.tar
kubectl apply -f - > /dev/null <<EOF
apiVersion: v1
kind: Namespace
metadata: {name: modelwright-system, labels: {pod-security.kubernetes.io/enforce: restricted}}
EOF
# The image's digest is an annotation, so that an image built anew is rolled out.
helm upgrade --install modelwright charts/modelwright --namespace modelwright-system \
    --set-string "podAnnotations.image=$(cat target/images/modelwright.digest)" --wait --timeout 5m "$@"
