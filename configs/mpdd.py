"""Config for MPDD: one model for its six categories.

python -m inp_former_jax.main --config=configs/mpdd.py --workdir=DIR \
  --config.data.root=DIR

options.py explains the options, e.g. mpdd.py:single_class or
mpdd.py:few_shot,shots=2.
"""

from ml_collections import ConfigDict

from inp_former_jax.configs import common, options


def get_config(arguments: str = "") -> ConfigDict:
  """Returns the defaults, with no figures of the paper to compare with.

  Args:
    arguments: The options, which options.py explains.
  """
  config = common.get_config()
  config.data.layout = "mpdd"
  return options.apply(config, arguments)
