"""The errors of exporting, and the packages that it needs."""

import importlib
import types

INSTALL = 'pip install "inp-former-jax[export]"'


class ExportError(ValueError):
  """Raised if a model cannot be exported as asked."""


class DifferenceError(ExportError):
  """Raised if an exported model does not answer as its checkpoint does."""


def require(module: str) -> types.ModuleType:
  """Imports a module of the extra `export`.

  Args:
    module: The module's name.

  Returns:
    The module.

  Raises:
    ExportError: If it is not installed.
  """
  try:
    return importlib.import_module(module)
  except ImportError as error:
    raise ExportError(
      f"This export needs the extra export ({error}). Install it: {INSTALL}"
    ) from error
