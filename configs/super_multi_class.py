"""Config for super-multi-class: one model for MVTec-AD, VisA and Real-IAD.

python -m inp_former_jax.main --config=configs/super_multi_class.py \
  --workdir=DIR --config.data.sources="(('mvtec', '/data/mvtec'), \
  ('visa', '/data/visa'), ('realiad', '/data/realiad'))"

Any layouts can be mixed in this way. By default every image is drawn equally
often, as in the paper; `--config.data.sampling=dataset` draws from every data
set equally often.
"""

from ml_collections import ConfigDict

from inp_former_jax.configs import common, options


def get_config(arguments: str = "") -> ConfigDict:
  """Returns the paper's settings; the folders of the data sets are left empty.

  Args:
    arguments: The options, which options.py explains.
  """
  config = common.get_config()
  config.data.sources = (("mvtec", ""), ("visa", ""), ("realiad", ""))
  return options.apply(config, arguments)
