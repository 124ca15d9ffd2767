"""Answers of a model: how tokens are chosen, one or many answers, and a conversation."""
