#!/bin/sh
# run.sh CLUSTER NAME CARGO-ARGUMENT...
# Starts a cluster without kubelets, runs what cargo runs in its network, where pod addresses lead to the fake kubelet,
# and ends it. TEST_ARGUMENTS go to the program. PROGRAMS= a folder of ours, for pods that are real processes: those of
# many journeys at once may want a GPU.
set -eu
cluster=$(realpath "$1")
name=$2
shift 2
# Built before: a compiler beside the cluster would slow down what is measured.
cargo "$@" --no-run >&2
if "$cluster" status "$name" >/dev/null 2>&1; then
    echo "cluster $name runs already; end it first: make cluster-down NAME=$name" >&2
    exit 1
fi
FAKES=$(mktemp -d)
export CLUSTER="$cluster" NAME="$name" FAKES
trap '"$cluster" down "$name" >&2; rm -rf "$FAKES"' EXIT
trap 'exit 130' INT TERM
if [ -n "${PROGRAMS:-}" ]; then
    ORT_DYLIB_PATH=$(tests/tools/onnxruntime.sh)
    export ORT_DYLIB_PATH
fi
"$cluster" up "$name" --control-plane-only --audit \
    --fake-termination-message="$FAKES/message" --fake-state="$FAKES/state" \
    ${PROGRAMS:+--real-processes="$PROGRAMS" --gpus=64} >&2
# shellcheck disable=SC2086
cargo --config "target.'cfg(unix)'.runner = ['$cluster', 'exec', '$name', '--']" "$@" -- ${TEST_ARGUMENTS:-}
