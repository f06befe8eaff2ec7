#!/bin/sh
# Prints the path of a perf_analyzer that runs here, from its PyPI wheel; prepares it the first time. The wheel is made
# for glibc 2.38, newer than Debian 12's: its program is run by the loader of Debian 13, unpacked beside it.
set -eu
. "$(dirname "$0")/wheel.sh"
version=2.60.0
cache=${XDG_CACHE_HOME:-$HOME/.cache}/modelwright
folder=$cache/perf-analyzer-$version
platform=manylinux_2_38_x86_64
fetch_wheel perf_analyzer "$version" 23ef56b107ae9233e5cf09fbdf508dd9b936a52f1bae2f63f53c8117087b3f25 "$folder" \
    perf_analyzer/bin/perf_analyzer
(
    flock 9
    [ -x "$folder/perf_analyzer.sh" ] && exit 0
    work=$(mktemp -d "$folder.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    # The machine's own mirror, one release on, with lists of its own: nothing is installed.
    mkdir -p "$work/sources" "$work/lists/partial" "$work/archives/partial" "$work/root"
    sed 's/bookworm/trixie/g' /etc/apt/sources.list.d/debian.sources >"$work/sources/trixie.sources"
    cd "$work"
    apt() {
        apt-get -qq -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$work/sources" \
            -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/archives" -o APT::Sandbox::User=root "$@" >&2
    }
    apt update
    apt download libc6 libgcc-s1 libssl3t64 libstdc++6 libzstd1 zlib1g
    for package in *.deb; do dpkg-deb -x "$package" root; done
    rm -rf "$folder/root"
    mv root "$folder/root"
    libraries=$folder/root/usr/lib/x86_64-linux-gnu
    chmod +x "$folder/perf_analyzer/bin/perf_analyzer"
    cat >"$work/run" <<RUN
#!/bin/sh
exec "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$folder/perf_analyzer/bin/perf_analyzer" "\$@"
RUN
    chmod +x "$work/run"
    mv "$work/run" "$folder/perf_analyzer.sh"
) 9>"$folder.lock"
echo "$folder/perf_analyzer.sh"
