"""Recognises addresses of buckets, such as gs://bucket/folder."""

import os
import re

# What mounts a bucket as a folder in which files can be renamed; rclone does so
# for most of them.
_MOUNTS = {"gs": "gcsfuse"}


def scheme_of(path: str | os.PathLike) -> str | None:
  """Returns the scheme of an address, such as "gs"; None for a path.

  Args:
    path: A path or an address, also if `pathlib` has made `gs:/bucket` or an
      absolute path of it. What exists as a file or folder is no address.
  """
  text = os.fspath(path).removeprefix(os.path.join(os.getcwd(), ""))
  found = re.match(r"(\w{2,}):/", text)
  return found[1] if found and not os.path.exists(text) else None


def mount_hint(scheme: str) -> str:
  """Says how to get a folder of a bucket, for an error.

  Args:
    scheme: The scheme of its address.
  """
  tool = _MOUNTS.get(scheme, "rclone mount")
  return (
    f"Mount the bucket as a folder ({scheme}: for example with {tool}), and "
    "name that folder."
  )
