"""The 21 augmentations of few-shot training, on a batch on the device.

All but grey are affine maps of the sampling grid, so one sampler with a table
of matrices does them all: which one an image gets is data, not code, and a
batch may mix them. The conventions are those of PyTorch's `affine_grid` and
`grid_sample` with bilinear interpolation, reflection padding and
`align_corners=False`: coordinates run from -1 to 1 over the whole side, from
border to border, and an image is mirrored at the outer edge of its border
pixels.
"""

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np

# ITU-R BT.601, as the original takes them; on the normalised image, where
# they give no true luminance.
GREY_WEIGHTS = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """One way to change an image.

  Attributes:
    name: For logs.
    matrix: 2x3, from a point (x, y, 1) of the result to the point of the
      image shown there; x to the right, y down, each from -1 to 1.
    grey: Whether the result is grey.
  """

  name: str
  matrix: tuple[tuple[float, float, float], tuple[float, float, float]]
  grey: bool = False


_IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
_FLIP = ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


def _rotation(degrees: float) -> Augmentation:
  """Turns what is shown counter-clockwise."""
  cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
  return Augmentation(
    f"rotate_{degrees:+g}",
    ((float(cos), float(-sin), 0.0), (float(sin), float(cos), 0.0)),
  )


def _quarter_turns(turns: int) -> Augmentation:
  """Turns counter-clockwise, like `np.rot90`; cos and sin are exact."""
  cos, sin = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[turns]
  return Augmentation(f"rot90_{turns}", ((cos, -sin, 0.0), (sin, cos, 0.0)))


def _translation(x: float, y: float) -> Augmentation:
  """Moves the window, in halves of a side: what is shown moves back."""
  return Augmentation(
    f"translate_{x:+g}_{y:+g}", ((1.0, 0.0, x), (0.0, 1.0, y))
  )


_ANGLES = (-45.0, -33.75, -22.5, -11.25, 11.25, 22.5, 33.75, 45.0)
_SIGNS = ((1, 1), (-1, 1), (-1, -1), (1, -1))

# In the order of the original. A run resumes with these numbers: append only.
AUGMENTATIONS: tuple[Augmentation, ...] = (
  Augmentation("none", _IDENTITY),
  *(_rotation(degrees) for degrees in _ANGLES),
  *(_translation(a * x, a * y) for a in (0.2, 0.1) for x, y in _SIGNS),
  Augmentation("hflip", _FLIP),
  Augmentation("grey", _IDENTITY, grey=True),
  *(_quarter_turns(turns) for turns in (1, 2, 3)),
)


def augment(images: jax.Array, index: jax.Array) -> jax.Array:
  """Augments each image of a batch in its own way.

  Flips and quarter turns, and index 0, give the very values of the image.

  Args:
    images: (B, H, W, 3) float32, normalised; H = W.
    index: (B,) int32 in [0, 22), rows of AUGMENTATIONS; 0 leaves the image as
      it is. Traced values cannot be refused: others give nan.

  Returns:
    (B, H, W, 3) float32.

  Raises:
    ValueError: The images are not square: quarter turns would give another
      shape. Or a shape or dtype is not as above.
  """
  _check(images, index)
  side = images.shape[1]
  table = np.array([row.matrix for row in AUGMENTATIONS])
  table[:, :, 2] *= side / 2  # to pixels, whose centres are exact in float32
  matrices = _rows(jnp.asarray(table, jnp.float32), index, jnp.nan)
  sampled = jax.vmap(_sample)(images, matrices)
  grey = jnp.asarray([row.grey for row in AUGMENTATIONS])
  is_grey = _rows(grey, index, False)[:, None, None, None]
  return jnp.where(is_grey, _grey(sampled), sampled)


def _check(images: jax.Array, index: jax.Array) -> None:
  if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != jnp.float32:
    raise ValueError(
      f"The images are {images.dtype}{list(images.shape)}; expected "
      "float32[B, H, W, 3], normalised."
    )
  if index.shape != images.shape[:1] or not jnp.issubdtype(
    index.dtype, jnp.integer
  ):
    raise ValueError(
      f"The indices are {index.dtype}{list(index.shape)}; expected "
      f"int32[{images.shape[0]}], one for each image."
    )
  height, width = images.shape[1:3]
  if height != width:
    raise ValueError(
      f"The images are {height}x{width} pixels (height x width); expected "
      "square ones, for a quarter turn changes the shape of others. Set the "
      "crop to a square to train on few shots."
    )


def _rows(table: jax.Array, index: jax.Array, missing: float) -> jax.Array:
  return table.at[index].get(
    mode="fill", fill_value=missing, wrap_negative_indices=False
  )


def _grey(images: jax.Array) -> jax.Array:
  """(..., 3) -> (..., 3); sums, for a product may run in lower precision."""
  luma = functools.reduce(
    operator.add,
    (images[..., c] * weight for c, weight in enumerate(GREY_WEIGHTS)),
  )
  return jnp.broadcast_to(luma[..., None], images.shape)


def _sample(image: jax.Array, matrix: jax.Array) -> jax.Array:
  """Bilinear, with reflection.

  Args:
    image: (S, S, 3) float32.
    matrix: (2, 3) float32, between points (x, y) in pixels from the centre.

  Returns:
    (S, S, 3) float32.
  """
  side = image.shape[0]
  # Multiples of 1/2, hence exact; so are their images under flips and turns.
  offset = jnp.arange(side, dtype=jnp.float32) - (side - 1) / 2
  x, y = offset[None, :], offset[:, None]
  # Products of (2, 3) matrices would run on the matrix unit, in bfloat16.
  source_x, source_y = (a * x + b * y + shift for a, b, shift in matrix)
  left, right, weight_x = _neighbours(source_x, side)
  top, bottom, weight_y = _neighbours(source_y, side)

  def row(y):
    return (1 - weight_x) * pixel(y, left) + weight_x * pixel(y, right)

  def pixel(y, x):
    return image.at[y, x].get(mode="clip")  # a nan may become any integer

  return (1 - weight_y) * row(top) + weight_y * row(bottom)


def _neighbours(
  offset: jax.Array, side: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The two pixels along an axis that a point lies between.

  Args:
    offset: (S, S) float32, pixels from the centre, within or beyond the image.
    side: S.

  Returns:
    Lower and upper pixel, (S, S) int32, and the upper's weight, (S, S, 1).
  """
  # The outer edge is half a side from the centre; beyond it the image is
  # mirrored, and beyond the mirror image repeated.
  period = 2.0 * side
  offset = offset - period * jnp.round(offset / period)  # within +-S
  edge = side / 2
  inside = jnp.where(offset > edge, side - offset, offset)
  inside = jnp.where(offset < -edge, -side - offset, inside)
  # Between the outer edge and the centre of the border pixel: that pixel.
  position = jnp.clip(inside + (side - 1) / 2, 0, side - 1)
  lower = jnp.floor(position)
  upper = jnp.minimum(lower + 1, side - 1)
  weight = (position - lower)[..., None]
  return lower.astype(jnp.int32), upper.astype(jnp.int32), weight
