"""Distils an encoder into a smaller one of the same family.

The student learns the two target groups of a teacher (means of e0..e3 and of
e4..e7) on views of any images. The workdir gets

  targets/               views, and the teacher's answers, computed once
  checkpoints/, log.jsonl, tensorboard/
  student.safetensors    the student, for --config.model.encoder_weights=FILE
  student_int8.npz       the same in 8 bits
  report.json            held-out R2, and what decided it

The last three are written anew at every evaluation.
"""

import functools
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from inp_former_jax import experiment, sharding
from inp_former_jax.atomic import replacing
from inp_former_jax.data import loader, transforms
from inp_former_jax.distillation import held_out, initial_student
from inp_former_jax.distillation import student as learning
from inp_former_jax.distillation import teacher as teaching
from inp_former_jax.distillation.targets import CachedTargets
from inp_former_jax.distillation.views import HELD_OUT, TRAIN
from inp_former_jax.models import vit
from inp_former_jax.training import checkpoint
from inp_former_jax.training.progress import TrainingLog
from inp_former_jax.weights import (
  dinov2_rules,
  files,
  pretrained,
  quantisation,
)

INITIAL = ("teacher", "random")


def distill(config: ConfigDict, workdir: str | os.PathLike) -> held_out.R2:
  """Distils, or goes on distilling.

  Args:
    config: As `configs/distill.py` describes it.
    workdir: Folder for everything; a run that was stopped goes on when it is
      started again with the same config and workdir.

  Returns:
    Held-out R2: source of the views, or "all" -> group -> R2.

  Raises:
    DataError: A folder or a file of the images; named.
    CheckpointError: The workdir, or a checkpoint of another run.
    FileNotFoundError, ValueError: The teacher's weights, or a field.
  """
  # 1. Views, and the teacher's answers, computed once.
  _check(config)
  workdir = checkpoint.prepare_workdir(workdir, needed=0)
  mesh = sharding.make_mesh(**config.mesh)
  sharding.check_batch_size(mesh, config.batch_size)
  views = teaching.make_views(config)
  teacher = teaching.load_teacher(config)
  targets = teaching.prepare_targets(config, teacher, views, mesh, workdir)
  statistics = targets[TRAIN].statistics()

  # 2. Student, optimizer, and the compiled functions.
  total_steps = config.steps or config.epochs * loader.steps_per_epoch(
    len(targets[TRAIN]), config.batch_size
  )
  build = functools.partial(_build, config, teacher.encoder.variant.width)
  graphdef, abstract = nnx.split(nnx.eval_shape(build))
  schedule = experiment.make_schedule(config, total_steps)
  optimizer = experiment.make_optimizer(config, schedule)
  abstract = (abstract, jax.eval_shape(optimizer.init, abstract))
  shardings = sharding.parameter_shardings(mesh, abstract)
  init = jax.jit(optimizer.init, out_shardings=shardings[1])
  distill_step = jax.jit(
    learning.make_distill_step(graphdef, optimizer, *statistics),
    donate_argnums=0,
    out_shardings=(shardings, sharding.replicated(mesh)),
  )
  evaluate = held_out.make_evaluation(
    graphdef,
    views[HELD_OUT],
    targets[HELD_OUT],
    statistics,
    mesh,
    config.batch_size,
  )
  batches = loader.shuffled_batches(
    range(len(targets[TRAIN])),
    targets[TRAIN].__getitem__,
    batch_size=config.batch_size,
    seed=config.seed,
    num_workers=config.data.num_workers,
    num_threads=config.data.num_threads,
  )

  identity = config.to_dict() | {"teacher_sha256": teacher.sha256}

  def leave_student(trainable: nnx.State, step: int) -> held_out.R2:
    r2 = evaluate(trainable)
    print(held_out.format_table(r2, f"Held-out R2 at step {step}"))
    report = {"step": step, "held_out_r2": r2} | identity
    _write(trainable["encoder"], report, workdir)
    return r2

  # 3. Where to start: the newest checkpoint, or the beginning.
  folder, keep = workdir / "checkpoints", config.checkpoint.keep
  with checkpoint.Checkpointer(folder, identity, keep=keep) as checkpointer:
    start = checkpointer.latest_step or 0
    if start:
      *state, position = checkpointer.restore(
        *checkpoint.abstract(abstract, shardings)
      )
      batches.set_state(position)
      state = tuple(state)
    else:
      student = build()
      _initialise(student, config, teacher, targets[TRAIN], statistics)
      trainable = jax.device_put(nnx.state(student), shardings[0])
      state = (trainable, init(trainable))
      print(held_out.format_table(evaluate(trainable), "Held-out R2 at first"))
      del student, trainable
    del teacher

    # 4. The loop; every evaluation leaves a student.
    data = sharding.batch_sharding(mesh)
    with TrainingLog(config, workdir, schedule, start, total_steps) as log:
      for step in range(start + 1, total_steps + 1):
        batch = jax.tree.map(
          lambda x: sharding.to_global(x, data), next(batches)
        )
        state, metrics = distill_step(state, batch["image"], batch["groups"])
        log.step(step, metrics)
        if _due(step, config.checkpoint.every_steps) or step == total_steps:
          log.flush()  # a loss that is not finite must not be saved
          checkpointer.save(step, *state, batches.get_state())
        if _due(step, config.evaluation.every_steps) and step < total_steps:
          leave_student(state[0], step)

  # 5. The result.
  return leave_student(state[0], total_steps)


def _due(step: int, every: int) -> bool:
  return every > 0 and step % every == 0


def _check(config: ConfigDict) -> None:
  if jax.process_count() > 1:
    raise ValueError("Distillation runs in one process, on all its devices.")
  size = (config.views.size,) * 2
  transforms.Preprocessing(resize=size, crop=size)  # checks the size
  initial = config.student.initial
  if initial not in INITIAL and not pathlib.Path(initial).is_file():
    raise ValueError(
      f"config.student.initial is {initial!r}; it can be "
      f"{' or '.join(INITIAL)}, or the file of a student to go on from."
    )


def _build(config: ConfigDict, teacher_width: int) -> learning.Student:
  variant, num_registers = vit.parse_encoder_name(config.student.encoder)
  rngs = nnx.Rngs(config.seed)
  encoder = vit.VisionTransformer(
    variant,
    num_registers,
    dtype=experiment.DTYPES[config.student.dtype],
    rngs=rngs,
  )
  return learning.Student(encoder, teacher_width, rngs)


def _initialise(
  student: learning.Student,
  config: ConfigDict,
  teacher: teaching.Teacher,
  targets: CachedTargets,
  statistics: tuple[np.ndarray, np.ndarray],
) -> None:
  """Encoder as `config.student.initial` says; heads by least squares."""
  count = min(config.views.calibration, len(targets))
  items = [targets[i] for i in range(count)]
  images = transforms.normalise(np.stack([item["image"] for item in items]))
  groups = jnp.stack([item["groups"] for item in items])
  if config.student.initial == "teacher":
    initial_student.initialise_from_teacher(
      student.encoder, teacher.encoder, images
    )
  elif config.student.initial != "random":
    abstract = jax.eval_shape(lambda: nnx.state(student.encoder))
    weights = pretrained.load_encoder(
      config.student.encoder, config.student.initial, abstract
    )
    nnx.update(student.encoder, jax.tree.map(jnp.asarray, weights.state))
  student.fit_heads(images, learning.standardise(groups, *statistics))


def _write(
  encoder: nnx.State, report: Mapping[str, Any], workdir: pathlib.Path
) -> None:
  arrays = dinov2_rules.named_arrays(encoder)
  files.write_arrays(workdir / "student.safetensors", arrays)
  small = quantisation.quantise(arrays)
  files.write_arrays(workdir / "student_int8.npz", small)
  with replacing(workdir / "report.json") as part:
    part.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
