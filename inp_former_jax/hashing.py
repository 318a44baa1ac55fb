"""Computes the checksums by which files are recognised."""

import hashlib
import pathlib


def file_sha256(path: pathlib.Path) -> str:
  """Computes the sha256 checksum of a file, in hex.

  Args:
    path: The file.
  """
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
