"""Checkpoints: written whole, read safely, continued exactly."""
