"""The config for your own images, laid out as in data/layouts/folder.py.

python -m inp_former_jax.main --config=configs/folder.py --workdir=DIR \
  --config.data.root=DIR

Options, e.g. folder.py:single_class or folder.py:few_shot,shots=2: options.py.
"""

from ml_collections import ConfigDict

from configs import common, options


def get_config(arguments: str = "") -> ConfigDict:
  """Returns the paper's settings; normal images alone are enough to train."""
  config = common.get_config()
  config.data.layout = "folder"
  return options.apply(config, arguments)
