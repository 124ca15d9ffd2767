"""The trials of a search in their storage, and which process runs which."""
