#!/bin/sh
# Prints the path of ONNX Runtime's shared library, from its PyPI wheel; downloads it the first time.
set -eu
. "$(dirname "$0")/wheel.sh"
version=1.31.1
folder=${XDG_CACHE_HOME:-$HOME/.cache}/modelwright/onnxruntime-$version
fetch_wheel onnxruntime "$version" 1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536 "$folder" \
    "onnxruntime/capi/libonnxruntime.so.$version"
echo "$folder/onnxruntime/capi/libonnxruntime.so.$version"
