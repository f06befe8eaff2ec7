"""quantise.py FROM TO: the same model with its weights in eight bits, by ONNX Runtime's own tool."""

import logging
import os
import sys

from onnxruntime.quantization import QuantType, quantize_dynamic

logging.disable(logging.WARNING)
source, target = sys.argv[1:]
quantize_dynamic(source, target, weight_type=QuantType.QUInt8)
print(f"{os.path.getsize(source) / 1e6:.1f} MB → {os.path.getsize(target) / 1e6:.1f} MB")
