"""Your own images; data/layouts/folder.py says how to lay them out.

python -m inp_former_jax.main --config=configs/folder.py --workdir=DIR \
  --config.data.root=DIR

Options, e.g. folder.py:single_class or folder.py:few_shot,shots=2: options.py.
"""

from inp_former_jax.configs import common, options
from ml_collections import ConfigDict


def get_config(arguments: str = "") -> ConfigDict:
  """The paper's settings; normal images alone are enough to train."""
  config = common.get_config()
  config.data.layout = "folder"
  return options.apply(config, arguments)
