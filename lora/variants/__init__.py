"""Variants of the LoRA layer; each says only what differs."""
