"""Requests, the queue, and the one thread that answers them with the model; no HTTP."""
