"""The demo's config at a size that is measured in a moment."""

import pytest
from ml_collections import ConfigDict

from inp_former_jax.configs import demo


@pytest.fixture
def config() -> ConfigDict:
  """The demo's config with two images of 56 x 56 pixels in a batch."""
  config = demo.get_config()
  config.batch_size = 2
  config.data.resize = config.data.crop = 56
  return config
