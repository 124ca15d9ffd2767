"""Checks before training: plan, memory estimate and findings, without loading weights."""
