"""Replaces arguments by fields of the config in the errors of the library.

The rooms are a library: their errors name an argument, such as `root`. Users of
a job set a field of its config instead, here `config.data.root`, so the jobs
put the name of the field in its place.
"""

import functools
import re
from collections.abc import Callable, Collection
from typing import ParamSpec, TypeVar

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

# The field of the config for each argument.
FIELDS = {
  "batch_size": "batch_size",
  "categories": "data.categories",
  "crop": "data.crop",
  "crop_width": "data.crop_width",
  "dtype": "model.dtype",
  "encoder": "model.encoder",
  "encoder_weights": "model.encoder_weights",
  "epochs": "epochs",
  "keep": "checkpoint.keep",
  "layout": "data.layout",
  "mesh_data": "mesh.data",
  "mesh_fsdp": "mesh.fsdp",
  "peak_learning_rate": "optimizer.peak_learning_rate",
  "resize": "data.resize",
  "resize_width": "data.resize_width",
  "root": "data.root",
  "sampling": "data.sampling",
  "sources": "data.sources",
  "steps": "steps",
  "student_initial": "student.initial",
  "teacher_weights": "teacher.weights",
  "tfds": "data.tfds",
  "tfds_dir": "data.tfds_dir",
  "view_folders": "views.folders",
  "view_shares": "views.shares",
  "warmup_steps": "optimizer.warmup_steps",
}


def with_field_names(text: str) -> str:
  """Replaces arguments in backticks by the fields of the config.

  Args:
    text: An error's message, such as "`dtype`=float32 is slower".

  Returns:
    The message, in which `dtype` has become config.model.dtype, or
    --config.model.dtype where a value follows.
  """

  def field(found: re.Match) -> str:
    name, equals = found.groups()
    if name not in FIELDS:
      return found[0]
    return f"{'--' if equals else ''}config.{FIELDS[name]}{equals}"

  return re.sub(r"`(\w+)`(=?)", field, text)


def with_flag_names(text: str, flags: Collection[str]) -> str:
  """Replaces arguments in backticks by the flags of a command without a config.

  Args:
    text: An error's message, such as "Check `root`."
    flags: The arguments that the command has flags for.

  Returns:
    The message; for the flag "root", `root` has become --root.
  """
  names = "|".join(flags)
  return re.sub(f"`({names})`", r"--\1", text)


def naming_fields(
  job: Callable[_Parameters, _Result],
) -> Callable[_Parameters, _Result]:
  """Decorates a job so that the errors it raises name the config's fields.

  Args:
    job: A function that takes a config.
  """

  @functools.wraps(job)
  def wrapped(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
    try:
      return job(*args, **kwargs)
    except Exception as error:
      if len(error.args) == 1 and isinstance(error.args[0], str):
        error.args = (with_field_names(error.args[0]),)
      raise

  return wrapped
