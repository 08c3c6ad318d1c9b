"""What the numbers mean: frontiers and comparisons, from the Parquet alone, without torch."""
