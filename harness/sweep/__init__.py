"""The run: prepare, heat, worker; the runner drives them."""
