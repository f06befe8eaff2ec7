#!/usr/bin/env bash
# The protocol, as others see it: the conformance suite, Triton's own clients, and schemathesis on the OpenAPI document,
# against servers of the fixture models and of a real one: run.sh SERVER [SECONDS for schemathesis]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) server=$(realpath "$1") seconds=${2:-15}
python=$("$here/../tools/protocol-clients.sh")/bin/python
export ORT_DYLIB_PATH
ORT_DYLIB_PATH=${ORT_DYLIB_PATH:-$("$here/../tools/onnxruntime.sh")}
work=$(mktemp -d)
servers=()
trap 'kill "${servers[@]}" 2> /dev/null || true; wait; rm -rf "$work"' EXIT

# serve NAME PORT: a server of the fixture NAME, once it is ready
serve() {
    "$server" --model "$work/$1.onnx" --name "$1" --port "$2" 2> "$work/$1.log" &
    servers+=($!)
    for _ in $(seq 200); do
        curl --silent --fail --output /dev/null "http://127.0.0.1:$2/v2/health/ready" && return 0
        kill -0 "${servers[-1]}" 2> /dev/null || break
        sleep 0.05
    done
    cat "$work/$1.log" >&2
    return 1
}
free_port() { "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

"$python" "$here" --write-model "$work/full.onnx"
"$python" "$here" --write-model "$work/half.onnx" --half
cp "$("$here/../tools/magika.sh")/model.onnx" "$work/magika.onnx"
for model in full half magika; do
    port=$(free_port)
    serve "$model" "$port"
    "$python" "$here" --http "http://127.0.0.1:$port" --grpc "127.0.0.1:$port" --also all > "$work/$model.table" || {
        grep --after-context=1 failed "$work/$model.table" >&2
        exit 1
    }
    echo "conformance, model $model: $(tail -n 1 "$work/$model.table")"
    [ "$model" = full ] || continue
    "$python" "$here/clients.py" "127.0.0.1:$port" "127.0.0.1:$port" full
    # Its leavings go with the folder.
    (cd "$work" && timeout $((seconds + 30)) "$(dirname "$python")/st" --config-file "$here/schemathesis.toml" run \
        "http://127.0.0.1:$port/v2/openapi.json" --phases coverage,fuzzing --max-time "$seconds" --warnings off)
done
