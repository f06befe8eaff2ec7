#!/usr/bin/env bash
# The chart's life on a cluster: install, upgrade, rollback, uninstall, install. Models serve through all of it.
# Needs helm and kubectl on PATH, the images and the S3 store in the cluster.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/tools/store.sh

chart=charts/modelwright
release=(modelwright --namespace modelwright-system)
trap stop_forward EXIT

step() { echo "chart: $*"; }
fail() { echo "chart: $*" >&2; exit 1; }
mdep() { kubectl -n chart get mdep magika -o "jsonpath=$1"; }
pods() { kubectl -n chart get pods -l modelwright.dev/role=serve -o 'jsonpath={.items[*].metadata.uid}'; }
lease_seconds() {
    kubectl -n modelwright-system get lease modelwright-operator -o 'jsonpath={.spec.leaseDurationSeconds}'
}
still_serves() {
    [ "$(pods)" = "$serving" ] || fail "$1 restarted the model's pods"
    forward chart magika 80
    curl --silent --show-error --fail --retry 20 --retry-delay 1 --retry-all-errors "$url/v2/models/magika" > /dev/null ||
        fail "after $1 the model does not answer"
    stop_forward
}
# await COMMAND…: until it succeeds
await() {
    local deadline=$((SECONDS + 180))
    until "$@" > /dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || fail "not within 180 s: $*"
        sleep 0.5
    done
}
leases_for() { [ "$(lease_seconds)" = "$1" ]; }

step "a model serves"
helm upgrade --install "${release[@]}" $chart --reuse-values --wait --timeout 5m > /dev/null
open_store
make_bucket models
s3 models/magika/1/model.onnx --upload-file "$(tests/tools/magika.sh)/model.onnx"
store_secret chart
kubectl -n chart apply -f examples/s3.yaml > /dev/null
kubectl -n chart wait --for=condition=Ready mdep/magika --timeout=5m > /dev/null
serving=$(pods)
revision=$(helm list --namespace modelwright-system --output json | sed 's/.*"revision":"\([0-9]*\)".*/\1/')

step "upgrade: the operator's pods are new, the model's are not"
helm upgrade "${release[@]}" $chart --reuse-values --set leaseSeconds=5 --wait --timeout 5m > /dev/null
await leases_for 5
still_serves "helm upgrade"

step "rollback"
helm rollback "${release[@]}" "$revision" --wait --timeout 5m > /dev/null
await leases_for 8
still_serves "helm rollback"

step "uninstall: the definition and the models stay, and serve"
helm uninstall "${release[@]}" --wait --timeout 5m > /dev/null
await sh -c '[ -z "$(kubectl -n modelwright-system get deployments,pods,roles,pdb -o name)" ]'
await sh -c '[ -z "$(kubectl get clusterroles,clusterrolebindings -l app.kubernetes.io/part-of=modelwright -o name)" ]'
kubectl get crd modeldeployments.modelwright.dev > /dev/null
[ "$(mdep '{.status.stableRevision}')" = magika-r1 ] || fail "the ModelDeployment is gone"
still_serves "helm uninstall"

step "install again: it takes up what it finds"
helm install "${release[@]}" $chart --wait --timeout 5m > /dev/null
kubectl -n chart scale mdep/magika --replicas=2 > /dev/null
kubectl -n chart wait --for=jsonpath='{.status.availableReplicas}'=2 mdep/magika --timeout=5m > /dev/null
case " $(pods) " in *" $serving "*) ;; *) fail "the pod that served was replaced" ;; esac

step "deletion leaves nothing"
kubectl -n chart delete mdep magika > /dev/null
await sh -c '[ -z "$(kubectl -n chart get rs,svc,pdb,controllerrevisions,pods -o name)" ]'
kubectl delete namespace chart --wait=false > /dev/null
step "all is well"
