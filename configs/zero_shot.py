"""Zero-shot: a model trained elsewhere, scored by INP distance.

python -m inp_former_jax.main --config=configs/zero_shot.py --workdir=DIR \
  --config.zero_shot_checkpoint=WORKDIR_OF_THE_TRAINED_MODEL \
  --config.data.layout=visa --config.data.root=DIR

Nothing is trained: a patch is the more anomalous the farther it is from the
nearest INP of its own image.
"""

from inp_former_jax.configs import common, options
from ml_collections import ConfigDict


def get_config(arguments: str = "") -> ConfigDict:
  """Encoder and sizes must be those of the trained model."""
  config = common.get_config()
  config.protocol = "zero_shot"
  return options.apply(config, arguments)
