#!/usr/bin/env bash
# The protocol, as others see it: the conformance suite, Triton's own clients, and schemathesis on the OpenAPI document,
# against servers of the fixture models and of a real one, and again through a gateway, which answers a few points itself:
# run.sh SERVER GATEWAY [SECONDS for schemathesis]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) server=$(realpath "$1") gateway=$(realpath "$2") seconds=${3:-15}
python=$("$here/../tools/protocol-clients.sh")/bin/python
magika=$("$here/../tools/magika.sh")
export ORT_DYLIB_PATH
ORT_DYLIB_PATH=${ORT_DYLIB_PATH:-$("$here/../tools/onnxruntime.sh")}
# A gateway knows its pods by one port: in a network of our own it is free.
if [ -z "${OWN_NETWORK:-}" ]; then
    OWN_NETWORK=1 exec unshare --net "$0" "$server" "$gateway" "$seconds"
fi
ip link set lo up
work=$(mktemp -d)
processes=()
trap 'kill "${processes[@]}" 2> /dev/null || true; wait; rm -rf "$work"' EXIT
direct=127.0.0.1:8080 through=127.0.0.1:9080

# until_ready PORT LOG PATH: of the process that was started last
until_ready() {
    for _ in $(seq 4000); do
        curl --silent --fail --output /dev/null "http://127.0.0.1:$1/$3" && return 0
        kill -0 "${processes[-1]}" 2> /dev/null || break
        sleep 0.05
    done
    cat "$2" >&2
    return 1
}

# suite NAME ADDRESS [OPTIONS]
suite() {
    local name=$1 address=$2
    shift 2
    "$python" "$here" --http "http://$address" --grpc "$address" --model "$model" "$@" > "$work/table" || {
        grep --after-context=1 failed "$work/table" >&2
        exit 1
    }
    echo "conformance, $name: $(tail -n 1 "$work/table")"
}

"$python" "$here" --write-model "$work/full.onnx"
"$python" "$here" --write-model "$work/half.onnx" --half
cp "$magika/model.onnx" "$work/magika.onnx"
for model in full half magika; do
    processes=()
    "$server" --model "$work/$model.onnx" --name "$model" --port "${direct#*:}" 2> "$work/server.log" &
    processes+=($!)
    until_ready "${direct#*:}" "$work/server.log" v2/health/ready
    suite "model $model" "$direct" --also all
    if [ "$model" = full ]; then
        "$python" "$here/clients.py" "$direct" "$direct" full
        # Its leavings go with the folder.
        (cd "$work" && timeout $((seconds + 300)) "$(dirname "$python")/st" --config-file "$here/schemathesis.toml" run \
            "http://$direct/v2/openapi.json" --phases coverage,fuzzing --max-time "$seconds" --warnings off)
    fi

    "$python" "$here/gateway.py" "$work/kubeconfig" "$model" &
    processes+=($!)
    for _ in $(seq 4000); do
        [ ! -s "$work/kubeconfig" ] || break
        kill -0 "${processes[-1]}" || exit 1
        sleep 0.05
    done
    KUBECONFIG=$work/kubeconfig "$gateway" --namespace conformance --port "${through#*:}" --admin-port 9081 --announce-port 9082 \
        --drain-seconds 0 2> "$work/gateway.log" &
    processes+=($!)
    until_ready "${through#*:}" "$work/gateway.log" "v2/models/$model/ready"
    # Streams don't pass, and of several models nobody adds up the statistics.
    suite "model $model through the gateway" "$through" --also repository_index,compression,grpc_health \
        --skip "for all models" --skip "Watch begins"
    [ "$model" != full ] || "$python" "$here/clients.py" "$through" "$through" full

    kill "${processes[@]}"
    wait "${processes[@]}" 2> /dev/null || true
    rm "$work/kubeconfig"
done
