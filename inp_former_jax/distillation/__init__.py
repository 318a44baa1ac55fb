"""Distillation of an encoder into a smaller one: the parts of `distill.py`."""
