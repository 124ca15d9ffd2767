"""What `lit.doctor` finds out about the machine at hand."""
