"""Computes an initial student in closed form, as a narrower teacher.

The student's residual stream is the teacher's, projected onto its principal
components (Ashkboos et al., "SliceGPT", 2024, without their rotations between
blocks). Block by block, in the order in which they run, every linear layer of
the student is then fitted by least squares to what the teacher computes there,
given what the student itself has computed so far, so that errors do not add
up. Queries, keys and values keep the directions that matter most in the
teacher's attention; the MLP keeps the neurons that contribute most. Training
thus starts near its goal.

Letters in shapes: B images, T tokens, C widths, h heads, d width of a head.
"""

import jax.numpy as jnp
import numpy as np

from inp_former_jax.distillation.chunks import map_chunks, sum_chunks
from inp_former_jax.distillation.narrower_attention import (
  attention_moments,
  narrowing_matrix,
)
from inp_former_jax.models import vit

_RIDGE = 1e-3  # as a share of the mean square of the inputs


def initialise_from_teacher(
  student: vit.VisionTransformer,
  teacher: vit.VisionTransformer,
  images: vit.AnyArray,
) -> None:
  """Sets all parameters of a student.

  Args:
    student: The encoder to set, narrower than the teacher.
    teacher: The encoder to imitate.
    images: Normalised images, (B, H, W, 3), with some hundred thousand patches
      in all.

  Raises:
    ValueError: If the student is not narrower than the teacher, or has more
      heads.
  """
  small, large = student.variant, teacher.variant
  if small.width >= large.width or small.num_heads > large.num_heads:
    raise ValueError(
      f"A student of width {small.width} with {small.num_heads} heads cannot "
      f"be cut from a teacher of width {large.width} with {large.num_heads}. "
      "Start it at random: `initial`=random."
    )
  basis = principal_basis(teacher, images, small.width)
  for name in ("cls_token", "pos_embed"):
    _set(student, name, getattr(teacher, name)[...] @ basis)
  for name in ("kernel", "bias"):
    value = getattr(teacher.patch_embed, name)[...] @ basis
    _set(student.patch_embed, name, value)
  registers = teacher.register_tokens
  if registers is not None and student.num_registers == teacher.num_registers:
    _set(student, "register_tokens", registers[...] @ basis)

  streams = _Streams(student, teacher, images, basis)
  done = 0
  for block, source in zip(
    student.blocks, _sources(student, teacher), strict=True
  ):
    for skipped in teacher.blocks[done:source]:
      streams.goal = map_chunks(_forward, (skipped,), streams.goal)
    _fit_attention(block, teacher.blocks[source], streams)
    _fit_mlp(block, teacher.blocks[source], streams)
    done = source + 1


class _Streams:
  """The residual streams of student and teacher at the same place.

  Attributes:
    x: Tokens of the student, (B, T, C).
    goal: Tokens of the teacher, (B, T', C').
    basis: Matrix from the teacher's stream to the student's, (C', C).
    patches: Index of the first patch among the student's tokens, and among the
      teacher's.
  """

  def __init__(self, student, teacher, images, basis):
    self.x = map_chunks(_embed, (student,), images)
    self.goal = map_chunks(_embed, (teacher,), images)
    self.basis = basis
    self.patches = (1 + student.num_registers, 1 + teacher.num_registers)

  def fit(self, layer, sample, modules, *arrays) -> None:
    """Fits a linear layer by least squares.

    Args:
      layer: The layer to set.
      sample: Function (patches, *modules, *arrays) that returns the layer's
        inputs, (n, i), and the outputs wanted, (n, o). It is called with
        chunks of the arrays.
      modules: Modules or arrays that the function gets whole.
      *arrays: Arrays that the function gets in chunks, (B, ...).
    """
    moments = sum_chunks(
      _linear_moments, modules, *arrays, static=(sample, self.patches)
    )
    kernel, bias = _solve(*moments)
    _set(layer, "kernel", kernel)
    _set(layer, "bias", bias)


def _set(module, name: str, value: vit.AnyArray) -> None:
  parameter = getattr(module, name)
  if parameter[...].shape != value.shape:
    raise AssertionError(f"{name}: {value.shape} for {parameter[...].shape}")
  parameter[...] = jnp.asarray(value, jnp.float32)


def _sources(
  student: vit.VisionTransformer, teacher: vit.VisionTransformer
) -> list[int]:
  """Returns, for each block of the student, the teacher's block to imitate.

  Target blocks imitate target blocks; for the others, the index of the
  teacher's block is interpolated.
  """
  here, there = student.variant.target_blocks, teacher.variant.target_blocks
  matched = np.interp(range(len(student.blocks)), (-1, *here), (-1, *there))
  return [int(i) for i in np.round(matched)]


def principal_basis(
  teacher: vit.VisionTransformer, images: vit.AnyArray, width: int
) -> np.ndarray:
  """Computes the main directions of a layer-normed residual stream.

  They are orthogonal to (1, ..., 1), which layer norm removes, on both sides,
  so that the student's layer norm finds the mean already removed.

  Args:
    teacher: The encoder whose residual stream is analysed.
    images: Normalised images, (B, H, W, 3).
    width: Width C of the student.

  Returns:
    The basis, (C', C) float32, where C' is the teacher's width.
  """
  x = map_chunks(_embed, (teacher,), images)
  second_moment = 0.0
  for block in (None, *teacher.blocks):
    if block is not None:
      x = map_chunks(_forward, (block,), x)
    (moment,) = sum_chunks(
      _normed_moment, (), x, static=(1 + teacher.num_registers,)
    )
    second_moment += moment
  _, vectors = np.linalg.eigh(second_moment)
  main = vectors[:, ::-1][:, : width - 1]
  ones = np.ones((width, 1)) / np.sqrt(width)
  complement = np.linalg.svd(ones)[0][:, 1:]
  return np.asarray(main @ complement.T, np.float32)


def _embed(encoder, images):
  return encoder.embed(images)


def _forward(block, x):
  return block(x)


def _tokens(x, first_patch: int):
  """Returns the class tokens and patches of x (B, T, C) as (n, C).

  All encoders have these tokens, whereas some have no registers.
  """
  x = jnp.concatenate([x[:, :1], x[:, first_patch:]], axis=1)
  return x.reshape(-1, x.shape[-1])


def _normed_moment(first_patch, x):
  x = _tokens(x, first_patch)
  x = x - x.mean(axis=-1, keepdims=True)
  x = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
  return (x.T @ x,)


def _fit_attention(block, source, streams: _Streams) -> None:
  """Sets a block's attention and advances both streams past it.

  norm1 and ls1 keep their initial scales of 1.
  """
  here, there = streams.patches
  moments = sum_chunks(
    attention_moments, (source,), streams.goal, static=(there,)
  )
  narrow = narrowing_matrix(
    source, moments, block.attn.num_heads, streams.basis.shape[1]
  )
  streams.fit(
    block.attn.qkv,
    _qkv_sample,
    (block, source, narrow),
    streams.x,
    streams.goal,
  )
  streams.goal = map_chunks(_add_attention, (source,), streams.goal)
  streams.fit(
    block.attn.proj,
    _proj_sample,
    (block, streams.basis),
    streams.x,
    streams.goal,
  )
  streams.x = map_chunks(_add_attention, (block,), streams.x)


def _add_attention(block, x):
  return x + block.ls1[...] * block.attn(block.norm1(x))


def _qkv_sample(patches, block, source, narrow, x, goal):
  wanted = source.attn.qkv(source.norm1(goal)) @ narrow
  return _tokens(block.norm1(x), patches[0]), _tokens(wanted, patches[1])


def _proj_sample(patches, block, basis, x, goal):
  mixed = block.attn.mix(block.norm1(x))
  missing = _tokens(goal, patches[1]) @ basis - _tokens(x, patches[0])
  return _tokens(mixed, patches[0]), missing


def _fit_mlp(block, source, streams: _Streams) -> None:
  """Sets a block's MLP and advances both streams past it.

  norm2 and ls2 keep their initial scales of 1.
  """
  count, total, squares = sum_chunks(_neuron_moments, (source,), streams.goal)
  output = np.asarray(source.mlp.fc2.kernel[...] * source.ls2[...])
  deviation = np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0))
  added = np.linalg.norm(output @ streams.basis, axis=1) * deviation
  num_neurons = block.mlp.fc1.bias[...].shape[0]
  kept = np.sort(np.argsort(added)[::-1][:num_neurons])
  streams.fit(
    block.mlp.fc1, _fc1_sample, (block, source, kept), streams.x, streams.goal
  )
  streams.goal = map_chunks(_add_mlp, (source,), streams.goal)
  streams.fit(
    block.mlp.fc2, _fc2_sample, (block, streams.basis), streams.x, streams.goal
  )
  streams.x = map_chunks(_add_mlp, (block,), streams.x)


def _add_mlp(block, x):
  return x + block.ls2[...] * block.mlp(block.norm2(x))


def _neuron_moments(source, x):
  hidden = source.mlp.hidden(source.norm2(x))
  hidden = hidden.reshape(-1, hidden.shape[-1])
  return jnp.asarray(len(hidden)), hidden.sum(0), jnp.square(hidden).sum(0)


def _fc1_sample(patches, block, source, kept, x, goal):
  wanted = source.mlp.fc1(source.norm2(goal))[..., kept]
  return _tokens(block.norm2(x), patches[0]), _tokens(wanted, patches[1])


def _fc2_sample(patches, block, basis, x, goal):
  hidden = block.mlp.hidden(block.norm2(x))
  missing = _tokens(goal, patches[1]) @ basis - _tokens(x, patches[0])
  return _tokens(hidden, patches[0]), missing


def _linear_moments(sample, patches, *arguments):
  """Computes count, sums and products of a layer's inputs and outputs."""
  x, y = sample(patches, *arguments)
  return jnp.asarray(len(x)), x.sum(0), y.sum(0), x.T @ x, x.T @ y


def _solve(count, sum_x, sum_y, gram, cross):
  mean_x, mean_y = sum_x / count, sum_y / count
  gram = gram - count * np.outer(mean_x, mean_x)
  gram += _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
  kernel = np.linalg.solve(gram, cross - count * np.outer(mean_x, mean_y))
  return kernel, mean_y - mean_x @ kernel


def fit_linear(
  inputs: vit.AnyArray, outputs: vit.AnyArray
) -> tuple[np.ndarray, np.ndarray]:
  """Fits outputs = inputs @ kernel + bias by least squares with a slight ridge.

  Args:
    inputs: Inputs of the layer, (n, i).
    outputs: Outputs wanted, (n, o).

  Returns:
    The kernel, (i, o), and the bias, (o,), both float64.
  """
  moments = sum_chunks(_given_moments, (), inputs, outputs, size=1 << 14)
  return _solve(*moments)


def _given_moments(x, y):
  return _linear_moments(lambda _, *given: given, None, x, y)
