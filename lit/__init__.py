"""The commands, and what joins adapters and data with Lightning and transformers."""
