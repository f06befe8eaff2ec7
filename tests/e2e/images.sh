#!/usr/bin/env bash
# Loads what the end-to-end tests need beside the images of `make images`: images.sh CLUSTER NAME VERSION
set -euo pipefail
cluster=$1 name=$2 version=$3
out=target/images
helper=$out/helper
(cd tests/e2e/helper && CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o "../../../$helper" .)

image() { # NAME:TAG ARCHIVE FILE…
    local name=$1 archive=$out/$2.tar
    shift 2
    "$cluster" image --name "modelwright.dev/$name" --out "$archive" "$@" > /dev/null
    archives+=("$archive")
}
archives=()
# The same as what is installed, by another name: an upgrade.
host=$(rustc -vV | sed -n 's/^host: //p')
programs=()
for part in operator gateway loader; do
    programs+=(--file "/modelwright-$part=${CARGO_TARGET_DIR:-target}/$host/release/modelwright-$part")
done
image modelwright:next modelwright-next "${programs[@]}" --entrypoint /modelwright-operator
image e2e-helper:1 e2e-helper --file "/helper=$helper" --entrypoint /helper
# The helper in the place of a server: it ends at once.
image modelwright-server:crash server-crash --file "/helper=$helper" --entrypoint /helper
# The CPU's server under the GPU's name: CUDA's libraries are absent.
server=${CARGO_TARGET_DIR:-target}/release/modelwright-server
onnxruntime=$(tests/tools/onnxruntime.sh)
image "modelwright-server:$version-cuda" server-no-cuda --file "/modelwright-server=$server" \
    --file "/usr/lib/libonnxruntime.so=$onnxruntime" --libs-of "$server" --libs-of "$onnxruntime" \
    --entrypoint /modelwright-server
"$cluster" load "$name" "${archives[@]}"
