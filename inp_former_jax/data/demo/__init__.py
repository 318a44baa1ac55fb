"""Procedural parts with and without defects, drawn from a seed."""
