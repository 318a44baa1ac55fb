"""Config for the demo: procedural parts, in minutes on a laptop's CPU.

python -m inp_former_jax.main --config=configs/demo.py --workdir=workdir/demo
"""

from ml_collections import ConfigDict

from inp_former_jax.configs import common


def get_config() -> ConfigDict:
  """Returns settings for the encoder within the package, at 224 pixels."""
  config = common.get_config()
  config.data.layout = "demo"
  config.data.resize = 256
  config.data.crop = 224
  config.model.encoder = "demo_vit_tiny_14"
  config.model.dtype = "float32"
  config.batch_size = 8
  config.steps = 120
  config.checkpoint.every_steps = 60
  return config
