"""Train on the simulated CUDA device, and print what was counted as JSON.

python device_run.py SHIM ROW [ROW ...]       a row is JSON: fields of ``Row``
"""

import json
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))

from device_shim import load_shim

load_shim(Path(sys.argv[2]))

import device_training  # noqa: E402 - it imports torch

print(json.dumps({"planted": device_training.plant(sys.argv[1])}), flush=True)
for text in sys.argv[3:]:
    try:
        result = device_training.run(sys.argv[1], device_training.Row(**json.loads(text)))
    except Exception:
        result = {"error": traceback.format_exc(limit=-14)}
    print(json.dumps(result), flush=True)
