"""Converts weights from and to other frameworks, and verifies them."""
