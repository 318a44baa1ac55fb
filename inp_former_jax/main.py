"""Command line: python -m inp_former_jax.main --config=FILE --workdir=DIR."""

import jax
from absl import app, flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Config file; --config.FIELD=VALUE overrides a field."
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder for checkpoints, logs and results."
)
_MODE = flags.DEFINE_enum(
  "mode",
  "train",
  ["train", "eval"],
  "train (or resume) and evaluate; or evaluate the newest checkpoint.",
)
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "Initialise jax.distributed: one process per host."
)


def main(argv: list[str]) -> None:
  """Hands the flags over."""
  if len(argv) > 1:
    raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
  if _DISTRIBUTED.value:
    jax.distributed.initialize()
  # Imported late: the first use of a device must come after the line above.
  from inp_former_jax import evaluate, train

  if _MODE.value == "train":
    train.train_and_evaluate(_CONFIG.value, _WORKDIR.value)
  else:
    evaluate.evaluate_checkpoint(_CONFIG.value, _WORKDIR.value)


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(main)
