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


def identify(url, model, paths, config):
    """One request for all files: {path: (label, score)}."""
    metadata = call(f"{url}/v2/models/{model}")
    rows = [features(path, config) for path in paths]
    request = {
        "inputs": [
            {
                "name": metadata["inputs"][0]["name"],
                "datatype": metadata["inputs"][0]["datatype"],
                "shape": [len(rows), len(rows[0])],
                "data": [value for row in rows for value in row],
            }
        ]
    }
    output = call(f"{url}/v2/models/{model}/infer", request)["outputs"][0]
    width = output["shape"][1]
    scores = [output["data"][i * width : (i + 1) * width] for i in range(len(paths))]
    return {path: verdict(path, row, config) for path, row in zip(paths, scores)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", default="magika")
    parser.add_argument("--config", required=True, help="Magika's config.min.json")
    parser.add_argument("files", nargs="+")
    arguments = parser.parse_args()
    with open(arguments.config) as file:
        config = json.load(file)
    answers = identify(arguments.url, arguments.model, arguments.files, config)
    width = max(map(len, answers))
    for path, (label, score) in answers.items():
        print(f"{path:<{width}}  →  {label} ({score:.2f})")


if __name__ == "__main__":
    main()
