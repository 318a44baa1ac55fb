"""The networks: the frozen encoder, and INP-Former on top of it."""
