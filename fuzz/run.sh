#!/usr/bin/env bash
# Runs the fuzz targets: run.sh SECONDS [TARGET]. What they find by the way stays in the cache; a crash is kept in
# fuzz/artifacts, and `make fuzz TARGET=… INPUT=file` runs it again.
set -euo pipefail
cd "$(dirname "$0")"
seconds=$1 only=${2:-} input=${INPUT:-}
version=0.13.1
cache=${XDG_CACHE_HOME:-$HOME/.cache}/modelwright
tool=$cache/cargo-fuzz-$version/bin/cargo-fuzz
build=$cache/fuzz

[ -x "$tool" ] || CARGO_TARGET_DIR=$build/tool cargo install --quiet --locked --root "$cache/cargo-fuzz-$version" "cargo-fuzz@$version"

# Sanitizers are an unstable option of the compiler, but stable toolchains bring their runtime.
export RUSTC_BOOTSTRAP=1
# The library is built once for all targets.
"$tool" build --fuzz-dir . --release --debug-assertions --sanitizer address --target-dir "$build/target" ${only:+"$only"}

host=$(rustc -vV | sed -n 's/^host: //p')
for target in ${only:-$(sed -n 's/^name = "\([a-z_]*\)"$/\1/p' Cargo.toml)}; do
    binary=$build/target/$host/release/$target
    mkdir -p "$build/corpus/$target" "artifacts/$target"
    if [ -n "$input" ]; then
        "$binary" "$input"
        continue
    fi
    "$binary" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="artifacts/$target/" "$build/corpus/$target" "corpus/$target" > "$build/$target.log" 2>&1 || {
        tail -n 60 "$build/$target.log" >&2
        exit 1
    }
    printf '%-12s %12s executions, %s edges\n' "$target" \
        "$(sed -n 's/^stat::number_of_executed_units: *//p' "$build/$target.log")" \
        "$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$build/$target.log" | tail -n 1)"
done
