#!/usr/bin/env bash
# Runs the fuzz targets: run.sh SECONDS [TARGET]. What they find by the way stays in the cache; a crash is kept in
# fuzz/artifacts, and `make fuzz TARGET=… INPUT=file` runs it again. run.sh test: a short search from the committed corpus,
# the same every time and on every machine.
set -euo pipefail
cd "$(dirname "$0")"
only=${2:-} input=${INPUT:-}
version=0.13.1
cache=${XDG_CACHE_HOME:-$HOME/.cache}/modelwright
tool=$cache/cargo-fuzz-$version/bin/cargo-fuzz
build=$cache/fuzz
found=$build/corpus limits=(-max_total_time="$1")
if [ "$1" = test ]; then
    found=$(mktemp -d) limits=(-seed=1 -runs=200000)
    trap 'rm -rf "$found"' EXIT
fi

[ -x "$tool" ] || CARGO_TARGET_DIR=$build/tool cargo install --quiet --locked --root "$cache/cargo-fuzz-$version" "cargo-fuzz@$version"

# Sanitizers are an unstable option of the compiler, but stable toolchains bring their runtime.
export RUSTC_BOOTSTRAP=1
# The library is built once for all targets.
"$tool" build --fuzz-dir . --release --debug-assertions --sanitizer address --target-dir "$build/target" ${only:+"$only"}

host=$(rustc -vV | sed -n 's/^host: //p')
for target in ${only:-$(sed -n 's/^name = "\([a-z_]*\)"$/\1/p' Cargo.toml)}; do
    binary=$build/target/$host/release/$target
    mkdir -p "$found/$target" "artifacts/$target"
    if [ -n "$input" ]; then
        "$binary" "$input"
        continue
    fi
    "$binary" "${limits[@]}" -timeout=120 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="artifacts/$target/" "$found/$target" "corpus/$target" > "$build/$target.log" 2>&1 || {
        tail -n 60 "$build/$target.log" >&2
        for file in "artifacts/$target"/*; do
            [ ! -e "$file" ] || echo "fuzz/$file, in base64: $(base64 --wrap=0 "$file")" >&2
        done
        exit 1
    }
    printf '%-12s %12s executions, %s edges\n' "$target" \
        "$(sed -n 's/^stat::number_of_executed_units: *//p' "$build/$target.log")" \
        "$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$build/$target.log" | tail -n 1)"
done
