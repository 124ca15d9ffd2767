"""Base and tuned models: loading, packed attention, loss, generation, fast layers."""
