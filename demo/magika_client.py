#!/usr/bin/env python3
"""Tells files' types by asking a served Magika model over the Open Inference Protocol.

What Magika's own package does around its model (features, thresholds), in the standard library alone.
"""

import argparse
import json
import os
import urllib.request


def call(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def features(path, config):
    """The first and last bytes of a file, without white space around them, padded to a fixed length."""
    block, padding = config["block_size"], config["padding_token"]
    with open(path, "rb") as file:
        beginning = file.read(block).lstrip()[: config["beg_size"]]
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - block))
        end = file.read().rstrip()[-config["end_size"] :]
    pad_beginning = [padding] * (config["beg_size"] - len(beginning))
    pad_end = [padding] * (config["end_size"] - len(end))
    return [*beginning, *pad_beginning, *pad_end, *end]


def verdict(path, scores, config):
    """The best label, where its score reaches the threshold that Magika's authors set for it."""
    score = max(scores)
    label = config["target_labels_space"][scores.index(score)]
    if score >= config["thresholds"].get(label, config["medium_confidence_threshold"]):
        return config["overwrite_map"].get(label, label), score
    with open(path, "rb") as file:
        is_text = b"\0" not in file.read(config["block_size"])
    return "txt" if is_text else "unknown", score


def identify(url, model, path, config):
    """Asks for one file: (label, score)."""
    tensor = call(f"{url}/v2/models/{model}")["inputs"][0]
    data = features(path, config)
    tensor = {"name": tensor["name"], "datatype": tensor["datatype"], "shape": [1, len(data)], "data": data}
    answer = call(f"{url}/v2/models/{model}/infer", {"inputs": [tensor]})
    return verdict(path, answer["outputs"][0]["data"], config)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", default="magika")
    parser.add_argument("--config", required=True, help="Magika's config.min.json")
    parser.add_argument("files", nargs="+")
    arguments = parser.parse_args()
    with open(arguments.config) as file:
        config = json.load(file)
    width = max(map(len, arguments.files))
    for path in arguments.files:
        label, score = identify(arguments.url, arguments.model, path, config)
        print(f"{path:<{width}}  →  {label} ({score:.2f})")


if __name__ == "__main__":
    main()
