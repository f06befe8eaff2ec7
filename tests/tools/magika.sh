#!/bin/sh
# Prints the folder of Magika's model (model.onnx, config.min.json), from its PyPI wheel; downloads it the first time.
set -eu
. "$(dirname "$0")/wheel.sh"
version=1.0.3
folder=${XDG_CACHE_HOME:-$HOME/.cache}/modelwright/magika-$version
model=magika/models/standard_v3_3
fetch_wheel magika "$version" 3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529 "$folder" \
    "$model/model.onnx" "$model/config.min.json"
echo "$folder/$model"
