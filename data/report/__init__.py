"""What became of the rows of a source, and one refusal for all of its problems."""
