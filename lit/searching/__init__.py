"""Trying settings on a person's own rows within a time, and saying which are better."""
