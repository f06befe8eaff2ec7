#!/usr/bin/env bash
# `make demo`: from nothing to answered inferences, a new version and a rollback. Every command is shown.
# With KUBECONFIG set it uses that cluster instead of starting one.
set -euo pipefail
cd "$(dirname "$0")/.."

. tests/tools/store.sh

cluster=$1 name=$2 version=$3
cache=${XDG_CACHE_HOME:-$HOME/.cache}/modelwright
work=$(mktemp -d)
jobs_log=$work/log
files=(README.md Cargo.toml Makefile Dockerfile src/lib.rs tests/cluster/main.go demo/magika_client.py
    charts/modelwright/values.schema.json .gitignore)
checked=(README.md Cargo.toml src/lib.rs tests/cluster/main.go)

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi
begin=${EPOCHREALTIME/./}
elapsed() { awk -v us=$((${EPOCHREALTIME/./} - $1)) 'BEGIN { printf "%.1f", us / 1e6 }'; }
title() { printf '\n%s%s%s  %s%s s%s\n' "$bold" "$*" "$plain" "$dim" "$(elapsed "$begin")" "$plain"; }
note() { printf '%s%s%s\n' "$dim" "$*" "$plain"; }
show() { printf '%s$ %s%s\n' "$dim" "$*" "$plain"; }
run() { show "$@"; "$@"; }

finish() {
    code=$?
    stop_forward
    if [ $code -ne 0 ]; then
        printf '\n%sThe demo failed.%s\n' "$bold" "$plain"
        kubectl -n demo get mdep,pods 2> /dev/null || true
        kubectl -n demo get mdep magika -o 'jsonpath={range .status.conditions[*]}{.type}={.status} {.reason}: {.message}{"\n"}{end}' \
            2> /dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT

field() { kubectl -n demo get mdep magika -o "jsonpath=$1"; }

ask() {
    forward demo magika 80
    show python3 demo/magika_client.py --url "$url" --config config.min.json "${1:-FILE…}"
    python3 demo/magika_client.py --url "$url" --config "$model/config.min.json" "${files[@]}"
}

# put KEY FILE: into the bucket models
put() {
    s3 "models/$1" --upload-file "$2"
    note "s3://models/$1  $(awk -v b="$(stat -c %s "$2")" 'BEGIN { printf "%.1f MB", b / 1e6 }')"
}

# until_ready COMMAND…: runs it and watches until Ready; sets $seconds
until_ready() {
    show "kubectl -n demo get mdep --watch &"
    kubectl -n demo get mdep --watch &
    local watcher=$! from
    sleep 0.5 # its first lines
    show "$*"
    from=${EPOCHREALTIME/./}
    "$@"
    show kubectl -n demo wait --for=condition=Ready mdep/magika --timeout=3m
    kubectl -n demo wait --for=condition=Ready mdep/magika --timeout=3m > /dev/null || { kill $watcher; return 1; }
    seconds=$(elapsed "$from")
    sleep 0.5 # its last
    kill $watcher 2> /dev/null || true
    wait $watcher 2> /dev/null || true
}

title "1. A cluster"
export PIP_DISABLE_PIP_VERSION_CHECK=1
venv=$cache/demo-$(sha256sum demo/requirements.txt | cut -c1-16)
python() { "$venv/bin/python" "$@"; }
(
    [ -e "$venv/complete" ] || {
        python3 -m venv "$venv" && "$venv/bin/pip" install --quiet -r demo/requirements.txt && touch "$venv/complete"
    }
) > "$jobs_log" 2>&1 &
venv_job=$!
make --no-print-directory images > "$work/images" 2>&1 &
images_job=$!
model=$(tests/tools/magika.sh)
if [ -z "${KUBECONFIG:-}" ]; then
    run make --no-print-directory cluster-up NAME="$name" > /dev/null
    eval "$("$cluster" env "$name")"
    own=1
else
    note "KUBECONFIG is set: using $(kubectl config current-context). It must be able to pull"
    note "  modelwright.dev/modelwright:$version         (target/images/modelwright.tar)"
    note "  modelwright.dev/modelwright-server:$version  (target/images/modelwright-server.tar)"
    note "  modelwright.dev/versitygw:1.8.0            (the S3 store: tests/cluster/manifests/s3.yaml)"
    own=
fi
! kill -0 $images_job 2> /dev/null || note "building the images: minutes the first time, seconds afterwards"
wait $images_job || { cat "$work/images"; exit 1; }
cat "$work/images"
run kubectl get nodes

title "2. The operator, from its chart"
show helm upgrade --install modelwright charts/modelwright --namespace modelwright-system --create-namespace --wait
if [ -n "$own" ]; then
    tests/tools/install.sh "$cluster" "$name" > "$jobs_log" 2>&1 &
else
    helm upgrade --install modelwright charts/modelwright --namespace modelwright-system --create-namespace --wait \
        > "$jobs_log" 2>&1 &
fi
helm_job=$!
if [ -n "$own" ]; then
    "$cluster" s3 "$name" > /dev/null 2> "$work/s3" || { cat "$work/s3"; exit 1; }
else
    kubectl apply --server-side -f tests/cluster/manifests/s3.yaml > /dev/null
    kubectl -n s3 get secret root > /dev/null 2>&1 || kubectl -n s3 create secret generic root \
        --from-literal=AWS_ACCESS_KEY_ID=demo --from-literal=AWS_SECRET_ACCESS_KEY="$(head -c 18 /dev/urandom | base64)"
    kubectl -n s3 rollout status deployment/versitygw --timeout=2m
fi
wait $helm_job || { cat "$jobs_log"; exit 1; }
run kubectl -n modelwright-system get pods

title "3. A model in an S3 store in the cluster"
open_store
make_bucket models
note "Magika, Google's model that tells a file's type from its bytes (Apache-2.0)"
put magika/1/model.onnx "$model/model.onnx"
store_secret demo
# what an earlier demo left
kubectl -n demo delete mdep magika --ignore-not-found > /dev/null
kubectl -n demo wait --for=delete pod -l modelwright.dev/deployment=magika --timeout=90s > /dev/null 2>&1 || true

title "4. Ten lines"
cat examples/s3.yaml
until_ready kubectl -n demo apply -f examples/s3.yaml
first=$seconds
run kubectl -n demo get mdep
run kubectl -n demo get replicasets,pods,services,poddisruptionbudgets

title "5. Requests through the Service"
ask
echo
note "The scores, beside the same model on ONNX Runtime in a process of its own:"
wait $venv_job || { cat "$jobs_log"; exit 1; }
python demo/check.py "$url" "$model" "${checked[@]}"

title "6. A second version: the same model with 8-bit weights, a quarter of the size"
mkdir "$work/quantised"
cp "$model/config.min.json" "$work/quantised"
python demo/quantise.py "$model/model.onnx" "$work/quantised/model.onnx"
open_store
put magika/2/model.onnx "$work/quantised/model.onnx"
sed s,magika/1,magika/2, examples/s3.yaml > "$work/s3-second.yaml"
show "sed s,magika/1,magika/2, examples/s3.yaml > s3-second.yaml"
cd "$work" # so that the command reads as one would type it
until_ready kubectl -n demo apply -f s3-second.yaml
cd - > /dev/null
next=$seconds
ask
echo
python demo/check.py "$url" "$work/quantised" "${checked[@]}"

title "7. And back: the old spec"
until_ready kubectl -n demo apply -f examples/s3.yaml
back=$seconds
note "No third revision: $(field '{.status.stableRevision}') was kept, and serves again."
run kubectl -n demo get controllerrevisions -l modelwright.dev/deployment=magika

title "How long it took"
phases() { kubectl -n demo get mdep magika -o json | python3 demo/phases.py "$1" "$2"; }
phases magika-r1 "$first"
printf '%-28s %5s s\n' "second version, until Ready" "$next" "rollback, until Ready" "$back" "the whole demo" "$(elapsed "$begin")"

printf '\n%sLook around%s\n' "$bold" "$plain"
named=
[ "$name" = modelwright ] || named=" NAME=$name"
[ -z "$own" ] || printf '  eval "$(make -s cluster-env%s)"\n' "$named"
cat <<EOF
  kubectl -n demo get mdep -o wide
  kubectl -n demo describe mdep magika
  kubectl -n modelwright-system logs deployment/modelwright
EOF
if [ -n "$own" ]; then
    printf '\nRemove everything: make cluster-down%s\n' "$named"
else
    printf '\nRemove everything: kubectl delete namespace demo s3; helm -n modelwright-system uninstall modelwright\n'
fi
