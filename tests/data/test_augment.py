"""The few-shot augmentations: parity first, then what must be exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from inp_former_jax.data.augment import AUGMENTATIONS, augment
from tests.conftest import GOLDENS

NAMES = [row.name for row in AUGMENTATIONS]
# The golden file keeps the order; its angles are in radians.
KEYS = [
  "image",
  *(
    f"rotate_{sixteenths * np.pi / 16:+.5f}"
    for sixteenths in (-4, -3, -2, -1, 1, 2, 3, 4)
  ),
  *NAMES[9:],
]
EXACT = {
  "none": lambda image: image,
  "hflip": lambda image: image[:, ::-1],
  "rot90_1": lambda image: np.rot90(image, 1),
  "rot90_2": lambda image: np.rot90(image, 2),
  "rot90_3": lambda image: np.rot90(image, 3),
}


compiled = jax.jit(augment)


@pytest.fixture(autouse=True)
def highest_precision():
  with jax.default_matmul_precision("highest"):
    yield


@pytest.fixture(scope="module")
def golden():
  with np.load(GOLDENS / "few_shot_augmentations.npz") as arrays:
    return {k: arrays[k][0].transpose(1, 2, 0) for k in arrays}


@pytest.fixture(scope="module")
def golden_results(golden):
  images = jnp.repeat(golden["image"][None], len(NAMES), axis=0)
  return np.asarray(compiled(images, jnp.arange(len(NAMES))))


def random_images(batch: int, side: int) -> np.ndarray:
  rng = np.random.default_rng(side)
  return rng.normal(size=(batch, side, side, 3)).astype(np.float32)


def indices(*names: str) -> jax.Array:
  return jnp.asarray([NAMES.index(name) for name in names], jnp.int32)


def test_there_are_the_image_and_21_augmentations(golden):
  assert len(set(NAMES)) == len(NAMES) == 22
  assert NAMES[0] == "none"
  assert list(golden) == KEYS


@pytest.mark.parametrize("index", range(22), ids=NAMES)
def test_equals_the_originals(golden, golden_results, index):
  # The original's coordinates are float32 from -1 to 1 and miss pixel centres
  # by some 1e-6 of a pixel, quarter turns included.
  np.testing.assert_allclose(
    golden_results[index], golden[KEYS[index]], atol=1e-5, rtol=0
  )


@pytest.mark.parametrize("side", [13, 14, 70, 392])
def test_flips_and_quarter_turns_are_exact(side):
  images = random_images(len(EXACT), side)
  for function in (augment, jax.jit(augment)):
    ours = function(jnp.asarray(images), indices(*EXACT))
    for name, image, result in zip(EXACT, images, ours, strict=True):
      np.testing.assert_array_equal(result, EXACT[name](image), err_msg=name)


def by_scipy(image, matrix):
  """The definition in float64; scipy's "reflect" mirrors at the outer edge."""
  side = image.shape[0]
  centres = (2 * np.arange(side) + 1) / side - 1
  y, x = np.meshgrid(centres, centres, indexing="ij")
  source = np.einsum("ij,jrc->irc", matrix, np.stack([x, y, np.ones_like(x)]))
  columns, rows = ((source + 1) * side - 1) / 2
  return np.stack(
    [
      scipy.ndimage.map_coordinates(
        channel.astype(np.float64), [rows, columns], order=1, mode="reflect"
      )
      for channel in np.moveaxis(image, -1, 0)
    ],
    axis=-1,
  )


@pytest.mark.parametrize("side", [1, 2, 14, 35])
def test_equals_scipy_at_other_sizes(side):
  rows = [row for row in AUGMENTATIONS if not row.grey]
  images = random_images(len(rows), side)
  ours = compiled(jnp.asarray(images), indices(*(row.name for row in rows)))
  for row, image, result in zip(rows, images, ours, strict=True):
    expected = by_scipy(image, np.array(row.matrix))
    # A coordinate is off by 1e-6 pixels, neighbours differ by up to 8.
    np.testing.assert_allclose(
      result, expected, atol=2e-5, rtol=0, err_msg=row.name
    )


def test_grey_weighs_the_normalised_channels():
  images = random_images(2, 14)
  grey = compiled(jnp.asarray(images), indices("grey", "grey"))
  expected = images.astype(np.float64) @ [0.299, 0.587, 0.114]
  for channel in range(3):
    np.testing.assert_allclose(grey[..., channel], expected, atol=1e-6)


def test_positive_angles_turn_counter_clockwise():
  # A bright spot to the right of the centre goes up.
  images = np.zeros((1, 41, 41, 3), np.float32)
  images[0, 20, 30] = 1
  turned = compiled(jnp.asarray(images), indices("rotate_+45"))[0, ..., 0]
  within = turned[8:33, 8:33]  # no mirror image reaches in there
  row, column = np.unravel_index(np.argmax(within), within.shape)
  assert (row + 8, column + 8) == (13, 27)


def test_translation_shows_what_is_to_the_right_and_below():
  images = random_images(1, 40)
  moved = compiled(jnp.asarray(images), indices("translate_+0.2_+0.2"))
  np.testing.assert_allclose(moved[0, :36, :36], images[0, 4:, 4:], atol=1e-5)


def test_batch_mixes_augmentations():
  images = jnp.asarray(random_images(22, 28))
  index = jnp.asarray(np.random.default_rng(0).permutation(22), jnp.int32)
  mixed = jax.jit(augment)(images, index)
  assert mixed.shape == images.shape and mixed.dtype == jnp.float32
  one = jax.jit(augment)
  for i in range(22):
    alone = one(images[i : i + 1], index[i : i + 1])[0]
    np.testing.assert_allclose(mixed[i], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap], ids=["jit", "vmap"])
def test_transformed_equals_plain(transform):
  images = jnp.asarray(random_images(22, 28))
  index = jnp.arange(22)
  plain = augment(images, index)
  if transform is jax.vmap:
    images, index = images[:, None], index[:, None]
  ours = transform(augment)(images, index).reshape(plain.shape)
  # XLA contracts products and sums where it compiles them together.
  np.testing.assert_allclose(ours, plain, atol=1e-5, rtol=0)


def test_other_indices_do_not_recompile():
  traces = []

  @jax.jit
  def traced(images, index):
    traces.append(index)
    return augment(images, index)

  images = jnp.asarray(random_images(2, 14))
  results = [
    traced(images, jnp.asarray(index, jnp.int32))
    for index in ((0, 0), (5, 17), (21, 18))
  ]
  assert len(traces) == 1
  assert np.abs(results[1] - results[2]).max() > 0.1


def test_index_beyond_the_table_gives_nan():
  images = jnp.asarray(random_images(4, 14))
  ours = np.asarray(jax.jit(augment)(images, jnp.array([-1, 22, 1000, 0])))
  assert np.isnan(ours[:3]).all()
  np.testing.assert_array_equal(ours[3], images[3])


@pytest.mark.parametrize(
  "shape, dtype, index_shape, message",
  [
    ((2, 28, 42, 3), "f", (2,), "28x42 .* square"),
    ((2, 28, 28, 3), "uint8", (2,), r"uint8\[2, 28, 28, 3\]; expected float32"),
    ((2, 3, 28, 28), "f", (2,), r"expected float32\[B, H, W, 3\]"),
    ((28, 28, 3), "f", (2,), r"expected float32\[B, H, W, 3\]"),
    ((2, 28, 28, 3), "f", (3,), r"int32\[3\]; expected int32\[2\]"),
  ],
)
def test_other_shapes_are_refused(shape, dtype, index_shape, message):
  images, index = jnp.zeros(shape, dtype), jnp.zeros(index_shape, jnp.int32)
  for function in (augment, jax.jit(augment)):
    with pytest.raises(ValueError, match=message):
      function(images, index)


def test_fractional_index_is_refused():
  with pytest.raises(ValueError, match=r"float32\[2\]; expected int32\[2\]"):
    augment(jnp.zeros((2, 14, 14, 3)), jnp.zeros(2))
