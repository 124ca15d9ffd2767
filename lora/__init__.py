"""Low-rank adapters for any torch model: put on, train, save, load, merge, take off."""
