#!/usr/bin/env bash
# Changes under load, on a cluster of its own and in that cluster's network: traffic.sh CLUSTER VERSION [ledger|zero]
# SCENE= plays those whose title has these words; else SEED=, which is the commit's, draws DRAW= of the scenes that are not
# played every time. REQUESTS= others than 2,000 a scene. KEEP_CLUSTER=1 leaves the cluster, and one that runs is used.
set -euo pipefail
cluster=$PWD/$1 version=$2
name=traffic shape=(--nodes=2 --gpus=2) arguments=() flags=() features=e2e
case ${3:-test} in
    test)
        what=(test --test traffic) arguments=(--nocapture) features=e2e,faults # as test-operator has built it
        export SEED=${SEED:-$(git rev-parse --short HEAD 2> /dev/null || echo 1)}
        ;;
    ledger) what=(bench --bench ledger) ;;
    # A second node takes processor time from what is timed.
    zero)
        what=(bench --bench zero) name=zero shape=(--nodes=1) flags=(--set nodeCache.enabled=true,nodeCache.sizeGiB=1,nodeCache.minFreePercent=0)
        # The cluster's network leads nowhere.
        tests/tools/silero.sh > /dev/null
        ;;
esac
# Built before: a compiler beside the cluster would slow it down.
cargo "${what[@]}" --quiet --locked --features "$features" --no-run

finish() {
    code=$?
    if [ $code -ne 0 ]; then
        echo "--- the operator's last words"
        kubectl -n modelwright-system logs --selector app.kubernetes.io/name=modelwright-operator --prefix --tail=60 || true
        kubectl get mdep,pods --all-namespaces -o wide || true
    fi
    [ -n "${KEEP_CLUSTER:-}" ] || "$cluster" down "$name"
    exit $code
} >&2
trap finish EXIT

"$cluster" up "$name" "${shape[@]}" > /dev/null
eval "$("$cluster" env "$name")"
tests/tools/install.sh "$cluster" "$name" "${flags[@]}" >&2
tests/e2e/images.sh "$cluster" "$name" "$version" >&2
state=$("$cluster" status "$name" | awk '$1 == "state" { print $2 }')
CONTAINERD=$(echo "$state"/node-*/containerd.sock)
export CONTAINERD CLUSTER=$cluster NAME=$name
cargo --config "target.'cfg(unix)'.runner = ['$cluster', 'exec', '$name', '--']" \
    "${what[@]}" --quiet --locked --features "$features" -- "${arguments[@]}"
