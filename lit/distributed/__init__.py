"""Several processes: how ranks meet, end together, and share a sharded base."""
