"""Images -> anomaly maps and scores; the one way for all uses."""
