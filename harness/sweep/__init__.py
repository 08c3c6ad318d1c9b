"""The run: plan, heats, records. What the runner does; it never imports torch."""
