"""Decoding, resizing and cropping: bit for bit what the original does."""

import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from inp_former_jax.data import transforms
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.masks import binary_mask, load_mask
from inp_former_jax.data.transforms import Preprocessing

GOLDEN = pathlib.Path(__file__).parents[1] / "goldens" / "preprocessing.npz"
PREPROCESSING = Preprocessing((32, 48), (28, 42))


@pytest.fixture(scope="module")
def golden():
  with np.load(GOLDEN) as arrays:
    return dict(arrays)


@pytest.fixture
def pixels():
  return np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_image_equals_the_originals(golden, index, tmp_path):
  path = tmp_path / "image.png"
  Image.fromarray(golden[f"image_{index}"]).save(path)
  sizes = Preprocessing(
    (int(golden["resize"]),) * 2, (int(golden["crop"]),) * 2
  )
  image = transforms.load_image(path, sizes)
  expected = golden[f"pre_{index}"].transpose(1, 2, 0)
  np.testing.assert_array_equal(transforms.normalise(image), expected)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_mask_equals_the_originals(golden, index, tmp_path):
  path = tmp_path / "mask.png"
  mask = Image.fromarray(golden[f"mask_{index}"])
  mask.save(path)
  sizes = Preprocessing(
    (int(golden["resize"]),) * 2, (int(golden["crop"]),) * 2
  )
  cropped = np.asarray(transforms.resize_and_crop(mask, sizes), np.float32)
  np.testing.assert_array_equal(
    cropped / np.float32(255), golden[f"mask_pre_{index}"][0]
  )
  np.testing.assert_array_equal(
    load_mask([path], sizes, 64), golden[f"mask_eval64_{index}"]
  )


def test_normalise_of_a_jax_array(pixels):
  # XLA multiplies by reciprocals: a few units in the last place.
  np.testing.assert_allclose(
    jax.jit(transforms.normalise)(pixels),
    transforms.normalise(pixels),
    atol=1e-6,
  )
  assert transforms.normalise(pixels).dtype == np.float32


def test_result_is_uint8_of_the_crops_size(pixels, tmp_path):
  Image.fromarray(pixels).save(tmp_path / "a.png")
  image = transforms.load_image(tmp_path / "a.png", PREPROCESSING)
  assert image.dtype == np.uint8 and image.shape == (28, 42, 3)


@pytest.mark.parametrize(
  "resize, first", [(15, 0), (17, 2), (19, 2), (16, 1), (14, 0)]
)
def test_crop_offset_rounds_halves_to_even(resize, first):
  # Python's round, as torchvision's: 0.5 -> 0, 1.5 -> 2, 2.5 -> 2.
  row = Image.fromarray(np.arange(resize, dtype=np.uint8)[None].repeat(14, 0))
  sizes = Preprocessing((14, resize), (14, 14))
  cropped = np.asarray(transforms.resize_and_crop(row, sizes))
  assert cropped[0, 0] == first


def test_crop_that_no_patch_divides():
  with pytest.raises(ValueError, match="100 pixels.* 14.* 98 and 112"):
    Preprocessing((128, 128), (112, 100)).require_patches(14)


def test_crop_larger_than_resize():
  with pytest.raises(ValueError, match="height of 112 .* larger than the 100"):
    Preprocessing((100, 128), (112, 112))


def save(image: Image.Image, path: pathlib.Path, **options) -> pathlib.Path:
  image.save(path, **options)
  return path


def decoded(path, mode="RGB"):
  return np.asarray(transforms.decode(path, mode))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_is_scaled(tmp_path, name):
  values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
  path = save(Image.fromarray(values), tmp_path / name)
  assert decoded(path)[0, :, 0].tolist() == [0, 0, 1, 128, 255]
  assert decoded(path, "L").tolist() == [[0, 0, 1, 128, 255]]


def test_16_bit_grey_in_a_32_bit_mode_is_scaled():
  image = Image.fromarray(np.array([[0, 65535]], np.int32))
  assert image.mode == "I"
  assert np.asarray(transforms.to_8_bit(image, "L")).tolist() == [[0, 255]]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_values_of_unknown_range(tmp_path, dtype):
  values = np.array([[0, 70000]], dtype)
  path = save(Image.fromarray(values), tmp_path / "deep.tif")
  with pytest.raises(DataError, match="deep.tif.*; convert"):
    transforms.decode(path, "RGB")


def test_grey_becomes_three_equal_channels(pixels, tmp_path):
  path = save(Image.fromarray(pixels[..., 0]), tmp_path / "a.png")
  np.testing.assert_array_equal(decoded(path), pixels[..., :1].repeat(3, -1))


def test_transparency_is_dropped(pixels, tmp_path):
  alpha = Image.fromarray(pixels[..., 0])
  image = Image.fromarray(pixels)
  image.putalpha(alpha)
  path = save(image, tmp_path / "rgba.png")
  np.testing.assert_array_equal(decoded(path), pixels)
  grey = Image.fromarray(pixels[..., 1])
  grey.putalpha(alpha)
  path = save(grey, tmp_path / "la.png")
  np.testing.assert_array_equal(decoded(path, "L"), pixels[..., 1])


@pytest.mark.parametrize("options", [{}, {"transparency": b"\x00\x80"}])
def test_palette_images(tmp_path, options):
  image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
  image = image.convert("P")
  image.putpalette([10, 20, 30, 40, 50, 60, 255, 255, 255])
  path = save(image, tmp_path / "a.png", **options)
  assert decoded(path).tolist() == [[[10, 20, 30], [40, 50, 60], [255] * 3]]


def test_cmyk(tmp_path):
  image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
  path = save(image, tmp_path / "a.tif")
  assert decoded(path)[0, 0].tolist() == [255, 0, 0]


def test_exif_orientation_is_ignored(pixels, tmp_path):
  exif = Image.Exif()
  exif[0x0112] = 6  # rotate by a quarter to display
  path = save(Image.fromarray(pixels), tmp_path / "a.png", exif=exif)
  np.testing.assert_array_equal(decoded(path), pixels)


def checkerboard(tmp_path, image, name="mask.png"):
  path = save(image, tmp_path / name)
  sizes = Preprocessing((28, 28), (28, 28))
  return load_mask([path], sizes, 28)


def test_masks_of_any_mode(tmp_path):
  expected = np.indices((28, 28)).sum(0) % 2 == 1
  grey = Image.fromarray(np.where(expected, 255, 0).astype(np.uint8))
  palette = Image.fromarray(expected.astype(np.uint8)).convert("P")
  palette.putpalette([0, 0, 0, 255, 255, 255])
  masks = {
    "grey": grey,
    "bits": grey.convert("1"),
    "palette": palette,
    "colour": grey.convert("RGB"),
    "alpha": grey.convert("LA"),
    "deep": Image.fromarray(np.where(expected, 65535, 0).astype(np.uint16)),
  }
  for mode, image in masks.items():
    result = checkerboard(tmp_path, image)
    assert result.dtype == bool
    np.testing.assert_array_equal(result, expected, err_msg=mode)


@pytest.mark.parametrize("values", [(127, False), (128, True)])
def test_threshold_is_one_half(values):
  mask = np.full((28, 28), values[0], np.uint8)
  assert (binary_mask(mask, 16) == values[1]).all()


def test_mask_of_class_numbers(tmp_path):
  mask = Image.fromarray(np.eye(28, dtype=np.uint8))
  with pytest.raises(DataError, match="labels.png.*than 1 of 255.*write 255"):
    checkerboard(tmp_path, mask, "labels.png")


def test_mask_without_any_defect_is_allowed(tmp_path):
  assert not checkerboard(tmp_path, Image.new("L", (28, 28))).any()


def test_mask_of_another_size_than_its_image(pixels, tmp_path):
  image = save(Image.fromarray(pixels), tmp_path / "part.png")
  mask = save(Image.new("L", (60, 41)), tmp_path / "part_mask.png")
  with pytest.raises(DataError) as caught:
    load_mask([mask], PREPROCESSING, 16, image_path=image)
  for found in (str(mask), "60x41", str(image), "60x40"):
    assert found in str(caught.value)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif"])
@pytest.mark.parametrize("kept", [0, 0.5])
def test_truncated_files_are_named(pixels, tmp_path, name, kept):
  path = save(Image.fromarray(pixels), tmp_path / name)
  content = path.read_bytes()
  path.write_bytes(content[: int(kept * len(content))])
  with pytest.raises(DataError, match=f"{name} cannot be read.*Replace"):
    transforms.load_image(path, PREPROCESSING)


def test_a_flipped_byte_is_noticed(pixels, tmp_path):
  path = save(Image.fromarray(pixels), tmp_path / "a.png")
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 255
  path.write_bytes(content)
  with pytest.raises(DataError, match="a.png"):
    transforms.load_image(path, PREPROCESSING)


def test_not_an_image_and_no_file(tmp_path):
  (tmp_path / "a.png").write_text("hello")
  for name in ("a.png", "b.png"):
    with pytest.raises(DataError, match=name):
      transforms.load_image(tmp_path / name, PREPROCESSING)
