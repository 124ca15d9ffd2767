"""Rows laid end to end: attention and recurrences within each, and the check of it."""
