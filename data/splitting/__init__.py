"""Which rows train and which validate: split by group, duplicates, near-duplicates."""
