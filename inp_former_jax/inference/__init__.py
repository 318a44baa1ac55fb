"""Inference: from images to anomaly maps and scores, the same for all uses."""
