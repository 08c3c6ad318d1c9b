"""A variant, in workers: built, trained, compressed, kept by all that it holds, brought back."""
