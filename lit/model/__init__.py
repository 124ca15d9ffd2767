"""Base and tuned models: loading, placing, preparing and checking, loss."""
