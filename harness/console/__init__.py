"""Console: what the command prints."""
