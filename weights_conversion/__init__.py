"""Weights from and to other frameworks, and their verification."""
