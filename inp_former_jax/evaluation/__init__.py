"""Evaluation: from predictions over a test set to metrics and figures."""
