#!/bin/sh
# Builds the binaries, each with what it needs and no more, and assembles the two images: images.sh CLUSTER VERSION
set -eu
cluster=$1 version=$2
mkdir -p target/images
host=$(rustc -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-target}

# Static: they need no file of the image but themselves.
for part in operator gateway loader; do
    RUSTFLAGS='-C target-feature=+crt-static' cargo build --quiet --locked --release --target "$host" \
        --no-default-features --features "$part" --bin "modelwright-$part"
done
cargo build --quiet --locked --release --no-default-features --features server --bin modelwright-server
onnxruntime=$("$(dirname "$0")/onnxruntime.sh")

"$cluster" image --name "modelwright.dev/modelwright:$version" --out target/images/modelwright.tar \
    --file "/modelwright-operator=$target/$host/release/modelwright-operator" \
    --file "/modelwright-gateway=$target/$host/release/modelwright-gateway" \
    --file "/modelwright-loader=$target/$host/release/modelwright-loader" \
    --entrypoint /modelwright-operator > target/images/modelwright.digest
"$cluster" image --name "modelwright.dev/modelwright-server:$version" --out target/images/modelwright-server.tar \
    --file "/modelwright-server=$target/release/modelwright-server" \
    --file "/usr/lib/libonnxruntime.so=$onnxruntime" \
    --libs-of "$target/release/modelwright-server" --libs-of "$onnxruntime" \
    --entrypoint /modelwright-server > target/images/modelwright-server.digest
for image in modelwright modelwright-server; do
    printf '%-45s %5.1f MB\n' "modelwright.dev/$image:$version" \
        "$(stat -c %s target/images/$image.tar | awk '{print $1 / 1e6}')"
done
