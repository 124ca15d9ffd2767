"""Several processes: how ranks connect, end together, and share a sharded base."""
