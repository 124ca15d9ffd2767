"""Base against tuned: losses, intervals, answers and the report."""
