"""Weights of encoders: their sources, files, checksums and naming rules."""
