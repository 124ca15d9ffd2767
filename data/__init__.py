"""Text, tokens and batches: from a file of questions and answers to one flat batch."""
