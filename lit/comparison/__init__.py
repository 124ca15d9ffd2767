"""The base model against the tuned one: losses, intervals, answers and a report."""
