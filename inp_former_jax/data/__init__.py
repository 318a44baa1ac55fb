"""Data sets: from image files in folders to training and evaluation batches."""
