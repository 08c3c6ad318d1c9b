"""Published: result tables of others as runs like any other."""
