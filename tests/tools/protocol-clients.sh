#!/bin/sh
# Prints the folder of a Python environment with the clients that tests/conformance names; installed the first time.
set -eu
requirements=$(dirname "$0")/../conformance/requirements.txt
digest=$(sha256sum "$requirements" | cut -c 1-16)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/modelwright/protocol-clients-$digest
[ -e "$folder/.complete" ] || (
    mkdir -p "$(dirname "$folder")"
    flock 9
    [ -e "$folder/.complete" ] && exit 0
    rm -rf "$folder"
    python3 -m venv "$folder" >&2
    "$folder/bin/python" -m pip install --quiet --retries 10 --timeout 60 --disable-pip-version-check --only-binary=:all: \
        --requirement "$requirements" >&2
    touch "$folder/.complete"
) 9> "$folder.lock"
echo "$folder"
