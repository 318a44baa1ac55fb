"""A vision transformer's blocks in PyTorch, timed beside those of the encoder.

Only the blocks are compared, as many as the encoder runs, on tokens of the same
shape and dtype, with random weights and the same number of threads: layer norm,
queries, keys and values, softmax attention, projection, LayerScale, and an MLP
with the exact GELU. PyTorch runs its own `scaled_dot_product_attention`,
without `torch.compile`. What comes before and after the blocks, and the rest of
the model, is not in the figures.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx

from inp_former_jax import sharding
from inp_former_jax.benchmarks.rounds import Spread
from inp_former_jax.data.worker_processes import usable_cores
from inp_former_jax.inference.trained import TrainedModel
from inp_former_jax.models import placement
from inp_former_jax.models.vit import LAYER_NORM_EPS
from inp_former_jax.training.model_state import DTYPES

OURS, THEIRS = "blocks in JAX", "blocks in PyTorch"


@dataclasses.dataclass(frozen=True)
class Comparison:
  """The times of the same blocks in both frameworks.

  Attributes:
    batch_size: Number of images in a batch.
    tokens: Number of tokens of an image.
    torch: Version of PyTorch.
    threads: Number of threads of PyTorch.
    ours: Seconds of a batch in JAX, one value for each round.
    theirs: Seconds of a batch in PyTorch, likewise.
  """

  batch_size: int
  tokens: int
  torch: str
  threads: int
  ours: tuple[float, ...]
  theirs: tuple[float, ...]

  @property
  def ratio(self) -> Spread:
    """How many times as fast JAX is, by round."""
    pairs = zip(self.ours, self.theirs, strict=True)
    return Spread.of([theirs / ours for ours, theirs in pairs])


def require_torch() -> Any:
  """Returns the package torch.

  Raises:
    ValueError: If it is not installed.
  """
  try:
    import torch  # not a dependency of this package
  except ImportError as error:
    raise ValueError(
      f"--versus=torch needs PyTorch, which cannot be imported ({error}): "
      "install it with `pip install torch`."
    ) from error
  return torch


def calls(
  model: TrainedModel, batch_size: int, crop: tuple[int, int]
) -> dict[str, Callable[[], object]]:
  """Returns both functions, which have been called twice.

  Args:
    model: The model, whose encoder is timed.
    batch_size: Number of images in a batch.
    crop: Height and width of the images in pixels.

  Raises:
    ValueError: If PyTorch is not installed, or finds no GPU where JAX has one.
  """
  found = {
    OURS: _ours(model, batch_size, crop),
    THEIRS: _theirs(model, batch_size, crop),
  }
  for call in found.values():
    call()
    call()
  return found


def num_tokens(model: TrainedModel, crop: tuple[int, int]) -> int:
  """Returns the number of tokens of an image, class and register tokens too.

  Args:
    model: The model.
    crop: Height and width of the images in pixels.
  """
  side = model.settings.spec.patch_size
  patches = (crop[0] // side) * (crop[1] // side)
  return patches + 1 + model.settings.spec.num_registers


def _ours(
  model: TrainedModel, batch_size: int, crop: tuple[int, int]
) -> Callable[[], object]:
  graphdef, state = nnx.split(model.merged().encoder.blocks)

  def run(state, tokens):
    for block in nnx.merge(graphdef, state):
      tokens = block(tokens)
    return tokens

  compiled = jax.jit(placement.on_mesh(model.mesh)(run))
  width = model.settings.spec.variant.width
  shape = (batch_size, num_tokens(model, crop), width)
  tokens = jax.random.normal(jax.random.key(0), shape)
  tokens = jax.device_put(
    tokens.astype(DTYPES[model.settings.dtype]),
    sharding.batch_sharding(model.mesh),
  )
  return lambda: jax.block_until_ready(compiled(state, tokens))


def _theirs(
  model: TrainedModel, batch_size: int, crop: tuple[int, int]
) -> Callable[[], object]:
  torch = require_torch()
  on_gpu = model.mesh.devices.flat[0].platform == "gpu"
  if on_gpu and not torch.cuda.is_available():
    raise ValueError(
      "--versus=torch: JAX has a GPU, but this PyTorch has none; install one "
      "built for CUDA, or set JAX_PLATFORMS=cpu."
    )
  torch.set_num_threads(usable_cores())
  variant = model.settings.spec.variant
  dtype = getattr(torch, model.settings.dtype)
  stack = _stack(
    torch,
    variant.width,
    variant.num_heads,
    len(model.merged().encoder.blocks),
  ).to("cuda" if on_gpu else "cpu", dtype)
  shape = (batch_size, num_tokens(model, crop), variant.width)
  tokens = torch.randn(shape, dtype=dtype, device="cuda" if on_gpu else "cpu")

  def run():
    with torch.inference_mode():
      stack(tokens)
      if on_gpu:
        torch.cuda.synchronize()

  return run


def _stack(torch: Any, width: int, heads: int, depth: int) -> Any:
  """Returns the blocks as a torch module."""
  nn, functional = torch.nn, torch.nn.functional

  class Block(nn.Module):
    def __init__(self):
      super().__init__()
      self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
      self.qkv = nn.Linear(width, 3 * width)
      self.proj = nn.Linear(width, width)
      self.scale1 = nn.Parameter(torch.ones(width))
      self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
      self.fc1 = nn.Linear(width, 4 * width)
      self.fc2 = nn.Linear(4 * width, width)
      self.scale2 = nn.Parameter(torch.ones(width))

    def forward(self, x):
      batch, tokens, _ = x.shape
      qkv = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, heads, -1)
      q, k, v = qkv.permute(2, 0, 3, 1, 4)
      mixed = functional.scaled_dot_product_attention(q, k, v)
      mixed = mixed.transpose(1, 2).reshape(batch, tokens, width)
      x = x + self.scale1 * self.proj(mixed)
      hidden = functional.gelu(self.fc1(self.norm2(x)))
      return x + self.scale2 * self.fc2(hidden)

  return nn.Sequential(*(Block() for _ in range(depth))).eval()


def compare(
  model: TrainedModel,
  batch_size: int,
  crop: tuple[int, int],
  seconds: dict[str, tuple[float, ...]],
) -> Comparison:
  """Returns the comparison of what was timed.

  Args:
    model: The model.
    batch_size: Number of images in a batch.
    crop: Height and width of the images in pixels.
    seconds: The seconds of both functions, by name.
  """
  torch = require_torch()
  return Comparison(
    batch_size=batch_size,
    tokens=num_tokens(model, crop),
    torch=torch.__version__,
    threads=torch.get_num_threads(),
    ours=seconds[OURS],
    theirs=seconds[THEIRS],
  )


def format_comparison(found: Comparison) -> str:
  """Formats the comparison.

  Args:
    found: What `compare` returned.
  """
  lines = [
    f"only the encoder's blocks, on {found.batch_size} x {found.tokens} "
    f"tokens; PyTorch {found.torch} with {found.threads} threads"
  ]
  for name, seconds in ((OURS, found.ours), (THEIRS, found.theirs)):
    lines.append(f"{name:<20}{_range([found.batch_size / s for s in seconds])}")
  ratio = found.ratio
  lines.append(
    f"JAX is {ratio.median:.2f} times as fast ({ratio.low:.2f} - "
    f"{ratio.high:.2f})"
  )
  return "\n".join(lines)


def _range(rates: Sequence[float]) -> str:
  spread = Spread.of(rates)
  return (
    f"{spread.median:>8.2f} images/s ({spread.low:.2f} - {spread.high:.2f})"
  )
