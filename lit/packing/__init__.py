"""Rows laid end to end: attention within each row, and the check that no row sees another."""
