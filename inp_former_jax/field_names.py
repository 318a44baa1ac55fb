"""The config's names of what the library's errors call by argument.

The rooms are a library: their errors name an argument, such as `root`. Whoever
runs a job with a config sets `config.data.root` instead, so the jobs put the
name of the field in its place.
"""

import contextlib
import re
import types
from collections.abc import Collection, Generator, Mapping

_PACKAGE = __name__.partition(".")[0]

# Argument -> field of the config, in jobs of any kind.
_COMMON_FIELDS = {
  "batch_size": "batch_size",
  "data": "mesh.data",
  "epochs": "epochs",
  "folder": "checkpoint.folder",
  "fsdp": "mesh.fsdp",
  "keep": "checkpoint.keep",
  "num_workers": "data.num_workers",
  "peak_learning_rate": "optimizer.peak_learning_rate",
  "steps": "steps",
  "warmup_steps": "optimizer.warmup_steps",
}
# The same in training and evaluation of an INP-Former.
TRAINING_FIELDS = _COMMON_FIELDS | {
  "attention": "model.attention",
  "best": "checkpoint.best",
  "cache": "cache",
  "cache_dir": "cache_dir",
  "categories": "data.categories",
  "crop": "data.crop",
  "crop_width": "data.crop_width",
  "dtype": "model.dtype",
  "encoder": "model.encoder",
  "encoder_weights": "model.encoder_weights",
  "init_from": "init_from",
  "layout": "data.layout",
  "resize": "data.resize",
  "resize_width": "data.resize_width",
  "root": "data.root",
  "sampling": "data.sampling",
  "skip_unreadable": "data.skip_unreadable",
  "sources": "data.sources",
  "tfds": "data.tfds",
  "tfds_dir": "data.tfds_dir",
  "use": "checkpoint.use",
}
# While one of `config.data.sources` is read.
SOURCE_FIELDS = {
  "categories": "data.sources",
  "layout": "data.sources",
  "root": "data.sources",
}
# In distillation; and while it loads its two encoders.
DISTILLATION_FIELDS = _COMMON_FIELDS | {
  "dtype": "student.dtype",
  "folders": "views.folders",
  "initial": "student.initial",
  "shares": "views.shares",
}
TEACHER_FIELDS = {
  "encoder": "teacher.encoder",
  "encoder_weights": "teacher.weights",
}
STUDENT_FIELDS = {
  "encoder": "student.encoder",
  "encoder_weights": "student.initial",
}


def with_field_names(
  text: str, fields: Mapping[str, str] = TRAINING_FIELDS
) -> str:
  """Replaces arguments in backticks by the fields of the config.

  Args:
    text: An error's message, such as "`dtype`=float32 is slower".
    fields: Argument -> field of the config.

  Returns:
    The message, in which `dtype` has become config.model.dtype, or
    --config.model.dtype if a value follows.
  """

  def field(found: re.Match) -> str:
    name, equals = found.groups()
    if name not in fields:
      return found[0]
    return f"{'--' if equals else ''}config.{fields[name]}{equals}"

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


@contextlib.contextmanager
def naming_fields(
  fields: Mapping[str, str] = TRAINING_FIELDS,
) -> Generator[None]:
  """Makes errors of this package name the config's fields.

  To be used as a decorator of a job, or in a `with` statement.

  Args:
    fields: Argument -> field of the config.
  """
  try:
    yield
  except Exception as error:
    whole = len(error.args) == 1 and isinstance(error.args[0], str)
    if whole and _is_ours(error.__traceback__):
      error.args = (with_field_names(error.args[0], fields),)
    raise


def _is_ours(traceback: types.TracebackType | None) -> bool:
  """Whether an error was raised by this package, and not by a library."""
  assert traceback is not None  # it has just been caught
  while traceback.tb_next:
    traceback = traceback.tb_next
  module = traceback.tb_frame.f_globals.get("__name__", "")
  return module.partition(".")[0] == _PACKAGE
