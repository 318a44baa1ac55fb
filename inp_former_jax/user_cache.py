"""Says where this project keeps, for a user, what can be had again."""

import os
import pathlib


def user_cache() -> pathlib.Path:
  """Returns the project's folder in the user's cache folder.

  Returns:
    The folder `inp_former_jax` in $XDG_CACHE_HOME or, without that, in
    ~/.cache; it may not exist yet.

  Raises:
    RuntimeError: If there is neither $XDG_CACHE_HOME nor a home folder.
  """
  caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  return pathlib.Path(caches).expanduser().absolute() / "inp_former_jax"
