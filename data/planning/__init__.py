"""An epoch decided before it starts: micro-batches, optimizer steps, resume, batches."""
