#!/usr/bin/env bash
# What needs a whole cluster: e2e.sh CLUSTER VERSION. With KUBECONFIG set it uses that cluster, which must be able to
# pull the images; otherwise it starts one, with the audit log on, and takes it down again.
set -euo pipefail
cluster=$1 version=$2
export CLUSTER=$PWD/$cluster NAME=test

finish() {
    code=$?
    if [ $code -ne 0 ]; then
        echo "--- the operator's last words"
        kubectl -n modelwright-system logs --selector app.kubernetes.io/name=modelwright-operator --prefix --tail=60 || true
        kubectl get mdep,pods --all-namespaces -o wide || true
    fi
    [ -z "${own:-}" ] || "$cluster" down "$NAME"
    exit $code
}
trap finish EXIT

cache=(--set nodeCache.enabled=true,nodeCache.sizeGiB=1,nodeCache.minFreePercent=0)
own=
if [ -z "${KUBECONFIG:-}" ]; then
    own=1
    "$cluster" up "$NAME" --audit --gpus=2 > /dev/null
    eval "$("$cluster" env "$NAME")"
    # Ready after its second measurement, or once it has its certificates: meanwhile the rest is installed.
    "$cluster" metrics-server "$NAME" &
    metrics=$!
    "$cluster" keda "$NAME" &
    keda=$!
    tests/tools/install.sh "$cluster" "$NAME" "${cache[@]}" > /dev/null
    "$cluster" s3 "$NAME" > /dev/null
    wait $metrics
    wait $keda
else
    echo "using KUBECONFIG: it must be able to pull modelwright.dev/modelwright:$version and modelwright-server:$version"
    helm upgrade --install modelwright charts/modelwright --namespace modelwright-system --create-namespace --wait --timeout 5m "${cache[@]}"
fi

# They wait for the cluster more than they compute: more at once than there are cores. With the features of
# test-operator, which has built them.
RUST_TEST_THREADS=5 cargo test --quiet --locked --features e2e,faults --test chart --test e2e
# It reads what the tests before made the operator do.
cargo test --quiet --locked --features e2e,faults --test e2e_audit
# It takes the operator away, so it is the last here.
tests/chart_e2e.sh
