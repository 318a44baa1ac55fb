"""The encoder and INP-Former."""
