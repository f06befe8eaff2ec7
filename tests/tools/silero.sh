#!/bin/sh
# Prints the path of a voice detector (silero-vad half, 1.3 MB), from its PyPI wheel; downloads it the first time.
set -eu
. "$(dirname "$0")/wheel.sh"
version=6.2.3
folder=${XDG_CACHE_HOME:-$HOME/.cache}/modelwright/silero-$version
model=silero_vad/data/silero_vad_half.onnx
fetch_wheel silero-vad "$version" 7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8 "$folder" "$model"
echo "$folder/$model"
