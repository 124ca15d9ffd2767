"""What is known of model families by name: layers that no adapter can reach, and routers."""
