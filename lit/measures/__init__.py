"""What is measured of a base model and a tuned one, with intervals."""
