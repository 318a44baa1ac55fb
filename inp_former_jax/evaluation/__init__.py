"""Predictions over a test set -> metrics, tables and pictures."""
