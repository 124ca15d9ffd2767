"""What the fit command does: check, measure the base, train, write the run's folder."""
