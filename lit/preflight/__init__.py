"""What is known before any weight is loaded: plan, memory estimate, findings."""
