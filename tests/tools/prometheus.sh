#!/bin/sh
# Prints the folder of prometheus and promtool, from Debian's package; downloads it the first time. It is unpacked, not
# installed: nothing is to be started by itself.
set -eu
folder=${XDG_CACHE_HOME:-$HOME/.cache}/modelwright/prometheus
if [ ! -e "$folder/.complete" ]; then
    mkdir -p "$(dirname "$folder")"
    (
        flock 9
        [ -e "$folder/.complete" ] && exit 0
        work=$(mktemp -d "$folder.XXXXXX")
        trap 'rm -rf "$work"' EXIT
        chmod 755 "$work"
        cd "$work"
        if ! apt-get download -q -o Acquire::Retries=5 prometheus >&2; then
            apt-get update -q -o Acquire::Retries=5 >&2
            apt-get download -q -o Acquire::Retries=5 prometheus >&2
        fi
        dpkg-deb --extract prometheus_*.deb out
        rm -rf "$folder"
        mv out "$folder"
        touch "$folder/.complete"
    ) 9>"$folder.lock"
fi
echo "$folder/usr/bin"
