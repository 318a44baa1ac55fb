"""Paths in which orbax finds files even if their folder has glob characters.

orbax collects what each process has written by a pattern such as
`ocdbt.process_*`. etils puts the folder before it and takes the whole for the
pattern, so that nothing is found in a folder `run[1]`: checkpoints are written
there without an error, and can never be restored.
"""

import glob
from collections.abc import Iterator

from etils.epath import gpath


class LiteralPath(gpath.PosixGPath):
  """A local path whose own characters are never part of a pattern.

  Paths derived from one are of this class too.
  """

  def glob(self, pattern: str) -> Iterator["LiteralPath"]:
    """Yields what matches a pattern within this folder.

    Args:
      pattern: A pattern relative to this folder.
    """
    for found in glob.glob(pattern, root_dir=self):
      yield self / found
