"""What the benchmark measures, one module for each group of kinds of work."""
