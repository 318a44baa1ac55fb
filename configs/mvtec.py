"""MVTec-AD layout, multi-class: one model for all categories of the root.

python -m inp_former_jax.main --config=configs/mvtec.py --workdir=DIR \
  --config.data.root=DIR
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
  """The paper's settings for MVTec-AD are the defaults."""
  config = common.get_config()
  config.data.layout = "mvtec"
  return config
