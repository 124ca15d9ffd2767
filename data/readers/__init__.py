"""Read rows from files and from the hub, each with its file and line."""
