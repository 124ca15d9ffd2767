"""A run's folder and what a command prints: paths, lock, metrics table, model card, memory."""
