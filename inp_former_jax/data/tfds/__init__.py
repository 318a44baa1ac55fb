"""Writes and reads TFDS data sets in array_record files without TensorFlow."""
