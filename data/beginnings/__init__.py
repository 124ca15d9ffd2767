"""Rows that begin with the same tokens: which they are, and what any set of them shares."""
