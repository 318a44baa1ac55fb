"""Data sets in TFDS's array_record files, without TensorFlow."""
