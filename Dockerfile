# syntax=docker/dockerfile:1
# The images of `make images`, for those who have a container builder:
#
#   docker build --target modelwright     -t modelwright.dev/modelwright:0.1.0 .
#   docker build --target server          -t modelwright.dev/modelwright-server:0.1.0 .
#   docker build --target server-cuda     -t modelwright.dev/modelwright-server:0.1.0-cuda .
#   docker build --target server-tensorrt -t modelwright.dev/modelwright-server:0.1.0-tensorrt .
#
# The project's own machines have no container builder and no GPU: this file was not built there, and the last stage
# was never tried. `make images` and `make image-cuda` were, and put the same files in the same places.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/target \
    set -eux; export CARGO_TARGET_DIR=/target; host=$(rustc -vV | sed -n 's/^host: //p'); mkdir /out; \
    for part in operator gateway loader; do \
        RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --release --target "$host" \
            --no-default-features --features "$part" --bin "modelwright-$part"; \
        cp "/target/$host/release/modelwright-$part" /out; \
    done; \
    cargo build --locked --release --no-default-features --features server --bin modelwright-server; \
    cp /target/release/modelwright-server /out

FROM scratch AS modelwright
COPY --from=build /out/modelwright-operator /out/modelwright-gateway /out/modelwright-loader /
USER 65532
ENTRYPOINT ["/modelwright-operator"]

# ONNX Runtime as Microsoft ships it on PyPI. Both wheels of one version: server and models can't tell them apart.
FROM python:3.12-slim-bookworm AS onnxruntime
ARG ONNXRUNTIME=1.31.1
RUN pip install --no-cache-dir --no-deps --target /wheel "onnxruntime==$ONNXRUNTIME" && \
    cp /wheel/onnxruntime/capi/libonnxruntime.so.* /libonnxruntime.so

FROM python:3.12-slim-bookworm AS onnxruntime-cuda
ARG ONNXRUNTIME=1.31.1
RUN pip install --no-cache-dir --target /wheel "onnxruntime-gpu[cuda,cudnn]==$ONNXRUNTIME" && mkdir /lib-cuda && \
    cp /wheel/onnxruntime/capi/libonnxruntime.so.* /lib-cuda/libonnxruntime.so && \
    cp /wheel/onnxruntime/capi/libonnxruntime_providers_*.so /lib-cuda && \
    find /wheel/nvidia -name 'lib*.so*' -exec cp -n {} /lib-cuda \;

FROM onnxruntime-cuda AS onnxruntime-tensorrt
RUN pip install --no-cache-dir --target /tensorrt 'tensorrt-cu13-libs>=10,<11' && \
    find /tensorrt -name 'lib*.so*' -exec cp -n {} /lib-cuda \;

FROM debian:bookworm-slim AS server
RUN apt-get update && apt-get install -y --no-install-recommends libstdc++6 && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/modelwright-server /
COPY --from=onnxruntime /libonnxruntime.so /usr/lib/libonnxruntime.so
USER 65532
ENTRYPOINT ["/modelwright-server"]

FROM debian:bookworm-slim AS server-cuda
RUN apt-get update && apt-get install -y --no-install-recommends libstdc++6 && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/modelwright-server /
COPY --from=onnxruntime-cuda /lib-cuda /usr/lib/modelwright
ENV ORT_DYLIB_PATH=/usr/lib/modelwright/libonnxruntime.so LD_LIBRARY_PATH=/usr/lib/modelwright \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 65532
ENTRYPOINT ["/modelwright-server"]

FROM server-cuda AS server-tensorrt
COPY --from=onnxruntime-tensorrt /lib-cuda /usr/lib/modelwright
