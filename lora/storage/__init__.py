"""The adapter folder: PEFT's format, checked when written and when read; atomic files."""
