"""The trials of a search in their storage, which process runs which, and what ends them."""
