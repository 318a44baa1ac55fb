"""The 21 augmentations of few-shot training, for a batch on the device.

All of them but grey are affine maps of the sampling grid, so one sampler with
a table of matrices covers them all: which augmentation an image gets is data,
not code, and a batch may mix them. The conventions are those of PyTorch's
`affine_grid` and `grid_sample` with bilinear interpolation, reflection padding
and `align_corners=False`: coordinates run from -1 to 1 over the whole side,
from border to border, and an image is mirrored at the outer edge of its border
pixels.
"""

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np

# The weights of ITU-R BT.601. Like the original, we apply them to the
# normalised image, where they do not give the true luminance.
GREY_WEIGHTS = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """One way to change an image.

  Attributes:
    name: The name shown in logs.
    matrix: The 2x3 matrix that maps a point (x, y, 1) of the result to the
      point of the image that is shown there. x points to the right and y down,
      each from -1 to 1.
    grey: Whether the result is grey.
  """

  name: str
  matrix: tuple[tuple[float, float, float], tuple[float, float, float]]
  grey: bool = False


_IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
_FLIP = ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


def _rotation(degrees: float) -> Augmentation:
  """Rotates the image content counter-clockwise."""
  cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
  return Augmentation(
    f"rotate_{degrees:+g}",
    ((float(cos), float(-sin), 0.0), (float(sin), float(cos), 0.0)),
  )


def _quarter_turns(turns: int) -> Augmentation:
  """Rotates counter-clockwise, like `np.rot90`; cos and sin are exact."""
  cos, sin = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[turns]
  return Augmentation(f"rot90_{turns}", ((cos, -sin, 0.0), (sin, cos, 0.0)))


def _translation(x: float, y: float) -> Augmentation:
  """Moves the window by x and y half sides; the content moves the other way."""
  return Augmentation(
    f"translate_{x:+g}_{y:+g}", ((1.0, 0.0, x), (0.0, 1.0, y))
  )


_ANGLES = (-45.0, -33.75, -22.5, -11.25, 11.25, 22.5, 33.75, 45.0)
_SIGNS = ((1, 1), (-1, 1), (-1, -1), (1, -1))

# In the order of the original. Only append: resumed runs rely on the indices.
AUGMENTATIONS: tuple[Augmentation, ...] = (
  Augmentation("none", _IDENTITY),
  *(_rotation(degrees) for degrees in _ANGLES),
  *(_translation(a * x, a * y) for a in (0.2, 0.1) for x, y in _SIGNS),
  Augmentation("hflip", _FLIP),
  Augmentation("grey", _IDENTITY, grey=True),
  *(_quarter_turns(turns) for turns in (1, 2, 3)),
)


def augment(images: jax.Array, index: jax.Array) -> jax.Array:
  """Applies to each image of a batch an augmentation of its own.

  Index 0, flips and quarter turns keep the exact values of the pixels.

  Args:
    images: The normalised images, (B, H, W, 3) float32, with H = W.
    index: The row of AUGMENTATIONS for each image, (B,) int32 in [0, 22); 0
      leaves the image as it is. Traced values cannot be checked, so any other
      index gives nan.

  Returns:
    The augmented images, (B, H, W, 3) float32.

  Raises:
    ValueError: If the images are not square, as quarter turns would change
      their shape, or if a shape or dtype is not as above.
  """
  _check(images, index)
  side = images.shape[1]
  table = np.array([row.matrix for row in AUGMENTATIONS])
  # In pixels, because the centres of pixels are exact in float32.
  table[:, :, 2] *= side / 2
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
      "square ones, because a quarter turn changes the shape of others. Use a "
      "square crop to train on few shots."
    )


def _rows(table: jax.Array, index: jax.Array, missing: float) -> jax.Array:
  return table.at[index].get(
    mode="fill", fill_value=missing, wrap_negative_indices=False
  )


def _grey(images: jax.Array) -> jax.Array:
  """Makes (..., 3) images grey.

  It sums products of scalars because a matrix product may run in lower
  precision.
  """
  luma = functools.reduce(
    operator.add,
    (images[..., c] * weight for c, weight in enumerate(GREY_WEIGHTS)),
  )
  return jnp.broadcast_to(luma[..., None], images.shape)


def _sample(image: jax.Array, matrix: jax.Array) -> jax.Array:
  """Samples an image bilinearly, with reflection at its edges.

  Args:
    image: The image, (S, S, 3) float32.
    matrix: The affine map, (2, 3) float32, from points of the result to points
      of the image, both (x, y) in pixels from the centre.

  Returns:
    The sampled image, (S, S, 3) float32.
  """
  side = image.shape[0]
  # These are multiples of 1/2 and hence exact, also after flips and quarter
  # turns.
  offset = jnp.arange(side, dtype=jnp.float32) - (side - 1) / 2
  x, y = offset[None, :], offset[:, None]
  # Products of (2, 3) matrices would run on the matrix unit, in bfloat16.
  source_x, source_y = (a * x + b * y + shift for a, b, shift in matrix)
  left, right, weight_x = _neighbours(source_x, side)
  top, bottom, weight_y = _neighbours(source_y, side)

  def row(y):
    return (1 - weight_x) * pixel(y, left) + weight_x * pixel(y, right)

  def pixel(y, x):
    return image.at[y, x].get(mode="clip")  # A nan may become any integer.

  return (1 - weight_y) * row(top) + weight_y * row(bottom)


def _neighbours(
  offset: jax.Array, side: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Finds the two pixels along an axis between which each point lies.

  Args:
    offset: The points along the axis, (S, S) float32, in pixels from the
      centre, within or beyond the image.
    side: S, the side of the image in pixels.

  Returns:
    The lower and the upper pixel, (S, S) int32 each, and the weight of the
    upper one, (S, S, 1) float32.
  """
  # The outer edge is half a side from the centre. Beyond it comes the mirror
  # image; beyond that, image and mirror image repeat.
  period = 2.0 * side
  offset = offset - period * jnp.round(offset / period)  # within +-S
  edge = side / 2
  inside = jnp.where(offset > edge, side - offset, offset)
  inside = jnp.where(offset < -edge, -side - offset, inside)
  # Points between the outer edge and the centre of the border pixel get the
  # value of that pixel.
  position = jnp.clip(inside + (side - 1) / 2, 0, side - 1)
  lower = jnp.floor(position)
  upper = jnp.minimum(lower + 1, side - 1)
  weight = (position - lower)[..., None]
  return lower.astype(jnp.int32), upper.astype(jnp.int32), weight
