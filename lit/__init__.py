"""The commands, and what joins adapters and data with Lightning and transformers."""

import os

# Before torch is loaded: it would warn in a hundred lines where another rank has ended.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
# Large blocks in pages of 2 MB, which Linux then hands out and looks up faster.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
