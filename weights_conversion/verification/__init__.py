"""Comparison with arrays of the original implementation; behind `verify`."""
