"""The commands, and what joins adapters and data with Lightning and transformers."""

import os

# Before torch is loaded: it would warn in a hundred lines where another rank has ended.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
