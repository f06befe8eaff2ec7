"""check.py URL FOLDER FILE...: what the cluster answers, beside Magika's own package on ONNX Runtime in this process.

FOLDER holds model.onnx and config.min.json. Ends with an error where labels differ, or scores by 0.0001 or more.
"""

import json
import sys
from pathlib import Path

import onnxruntime
from magika import Magika

from magika_client import identify

TOLERANCE = 1e-4

url, folder, *files = sys.argv[1:]
config = json.loads(Path(folder, "config.min.json").read_text())
own = Magika(model_dir=Path(folder))
width = max(map(len, files))
agree = True
print(f"{'':<{width}}  served              ONNX Runtime {onnxruntime.__version__} here")
for path in files:
    label, score = identify(url, "magika", path, config)
    direct = own.identify_path(Path(path))
    same = label == direct.output.label and abs(score - direct.score) < TOLERANCE
    agree = agree and same
    print(
        f"{path:<{width}}  {label:<11}{score:.5f}  {direct.output.label:<11}{direct.score:.5f}"
        f"  {'same' if same else 'DIFFERENT'}"
    )
sys.exit(0 if agree else 1)
