"""Super-multi-class: one model for MVTec-AD, VisA and Real-IAD together.

python -m inp_former_jax.main --config=configs/super_multi_class.py \
  --workdir=DIR --config.data.sources="(('mvtec', '/data/mvtec'), \
  ('visa', '/data/visa'), ('realiad', '/data/realiad'))"

Any layouts can be mixed so. `--config.data.sampling=dataset` draws from all
data sets alike; the default, as in the paper, from all images alike.
"""

from inp_former_jax.configs import common, options
from ml_collections import ConfigDict


def get_config(arguments: str = "") -> ConfigDict:
  """The paper's settings; the folders are to be filled in."""
  config = common.get_config()
  config.data.sources = (("mvtec", ""), ("visa", ""), ("realiad", ""))
  return options.apply(config, arguments)
