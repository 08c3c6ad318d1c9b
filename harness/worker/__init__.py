"""The worker: a forked process that does what the runner asks; the server that forks it."""
