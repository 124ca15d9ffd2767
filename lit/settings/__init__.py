"""The settings of a run: command line, YAML and defaults as one parser."""
