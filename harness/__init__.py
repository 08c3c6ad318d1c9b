"""How it is measured: grid, sweep, store, decision, report."""
