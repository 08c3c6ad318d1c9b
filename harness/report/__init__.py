"""What people see: figures, page, Markdown. Reads the decision, never torch."""
