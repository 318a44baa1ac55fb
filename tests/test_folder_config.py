"""The config for own images inspects the whole picture, at every size."""

import pytest

from inp_former_jax.configs import folder, mvtec


def sizes(config) -> tuple[int, int]:
  return config.data.resize, config.data.crop


def test_own_images_are_not_cropped():
  config = folder.get_config()
  assert config.data.layout == "folder"
  assert sizes(config) == (392, 392)
  assert config.data.resize_width == config.data.crop_width == 0


@pytest.mark.parametrize("size", [224, 280, 448])
def test_size_keeps_the_whole_picture(size):
  assert sizes(folder.get_config(f"size={size}")) == (size, size)
  assert sizes(folder.get_config(f"small,size={size},shots=2")) == (size, size)


@pytest.mark.parametrize(("size", "resize"), [(224, 256), (392, 448)])
def test_size_keeps_the_crop_of_the_paper(size, resize):
  assert sizes(mvtec.get_config(f"size={size}")) == (resize, size)
