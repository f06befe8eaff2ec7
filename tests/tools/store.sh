# Sourced: the S3 store of `cluster s3`, from outside the cluster. Needs curl and kubectl.

# forward NAMESPACE SERVICE PORT: sets $url to a local address of the Service; stop_forward ends it
forward() {
    stop_forward
    forward_log=$(mktemp)
    kubectl -n "$1" port-forward "svc/$2" ":$3" > "$forward_log" 2>&1 &
    forwarder=$!
    for _ in $(seq 600); do
        url=$(sed -n 's/^Forwarding from \(127[0-9.:]*\) .*/http:\/\/\1/p' "$forward_log")
        [ -z "$url" ] || return 0
        kill -0 "$forwarder" 2> /dev/null || break
        sleep 0.1
    done
    cat "$forward_log" >&2
    return 1
}

stop_forward() {
    [ -z "${forwarder:-}" ] && return 0
    kill "$forwarder" 2> /dev/null || true
    wait "$forwarder" 2> /dev/null || true
    rm -f "$forward_log"
    forwarder=
}

# open_store: forwards to it and reads its credentials into the usual variables
open_store() {
    AWS_ACCESS_KEY_ID=$(kubectl -n s3 get secret root -o 'jsonpath={.data.AWS_ACCESS_KEY_ID}' | base64 -d)
    AWS_SECRET_ACCESS_KEY=$(kubectl -n s3 get secret root -o 'jsonpath={.data.AWS_SECRET_ACCESS_KEY}' | base64 -d)
    forward s3 versitygw 7070
}

# s3 PATH [curl flags]
s3() {
    curl --silent --show-error --fail --aws-sigv4 aws:amz:us-east-1:s3 --header 'x-amz-content-sha256: UNSIGNED-PAYLOAD' \
        --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" "$url/$1" "${@:2}"
}

make_bucket() { s3 "$1" --head > /dev/null 2>&1 || s3 "$1" --request PUT > /dev/null; }

# store_secret NAMESPACE: makes it, with pod security and the Secret model-store
store_secret() {
    kubectl apply -f - > /dev/null <<EOF
apiVersion: v1
kind: Namespace
metadata: {name: $1, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: Secret
metadata: {name: model-store, namespace: $1}
stringData: {AWS_ACCESS_KEY_ID: "$AWS_ACCESS_KEY_ID", AWS_SECRET_ACCESS_KEY: "$AWS_SECRET_ACCESS_KEY"}
EOF
}
