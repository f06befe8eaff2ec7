#!/bin/sh
# Assembles the server's image for CUDA from PyPI wheels, gigabytes that are downloaded once: image-cuda.sh CLUSTER VERSION
set -eu
cluster=$1 version=$2
onnxruntime=1.31.1
target=${CARGO_TARGET_DIR:-target}
wheels=${XDG_CACHE_HOME:-$HOME/.cache}/modelwright/onnxruntime-gpu-$onnxruntime
[ -e "$wheels/.complete" ] || {
    rm -rf "$wheels"
    python3 -m pip install --quiet --disable-pip-version-check --only-binary=:all: --target "$wheels" \
        "onnxruntime-gpu[cuda,cudnn]==$onnxruntime"
    touch "$wheels/.complete"
}
cargo build --quiet --locked --release --no-default-features --features server --bin modelwright-server

set --
for library in "$wheels"/onnxruntime/capi/libonnxruntime_providers_*.so $(find "$wheels/nvidia" -name 'lib*.so*'); do
    set -- "$@" --file "/usr/lib/modelwright/$(basename "$library")=$library"
done
onnxruntime=$wheels/onnxruntime/capi/libonnxruntime.so.$onnxruntime
"$cluster" image --name "modelwright.dev/modelwright-server:$version-cuda" --out target/images/modelwright-server-cuda.tar \
    --file "/modelwright-server=$target/release/modelwright-server" \
    --file "/usr/lib/modelwright/libonnxruntime.so=$onnxruntime" "$@" \
    --libs-of "$target/release/modelwright-server" --libs-of "$onnxruntime" \
    --env ORT_DYLIB_PATH=/usr/lib/modelwright/libonnxruntime.so --env LD_LIBRARY_PATH=/usr/lib/modelwright \
    --env NVIDIA_VISIBLE_DEVICES=all --env NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    --entrypoint /modelwright-server
ls -l target/images/modelwright-server-cuda.tar
