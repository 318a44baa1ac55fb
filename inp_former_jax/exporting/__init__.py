"""Exporting: a trained model as files that answer without this package."""
