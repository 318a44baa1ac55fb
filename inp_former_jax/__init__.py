"""INP-Former in JAX: one model that finds defects on many products."""

__version__ = "0.1.0"
