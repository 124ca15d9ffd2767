"""What a search found: which settings are tied, the decision, and the report."""
