"""Distils an encoder into a smaller one of the same family.

The student learns the two target groups of a teacher (the means of e0..e3 and
of e4..e7) on views of any images. The workdir gets

  targets/               views and the teacher's groups, computed once
  config.json            the config; from then on the workdir is this run's
  checkpoints/, log.jsonl, tensorboard/
  student.safetensors    the student, for --config.model.encoder_weights=FILE
  student_int8.npz       the same in 8 bits
  report.json            held-out R2, and the settings of the run

Every evaluation replaces the last three.
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

from inp_former_jax import (
  checkpointing,
  config_files,
  experiment,
  field_ranges,
  sharding,
  workdir_owner,
)
from inp_former_jax.atomic import write_json
from inp_former_jax.data import loader, transforms
from inp_former_jax.distillation import held_out, initial_student
from inp_former_jax.distillation.student import (
  Student,
  make_distill_step,
  standardise,
)
from inp_former_jax.distillation.targets import CachedTargets
from inp_former_jax.distillation.teacher import (
  Teacher,
  load_teacher,
  prepare_targets,
)
from inp_former_jax.distillation.views import (
  HELD_OUT,
  SPLITS,
  TRAIN,
  Views,
  ViewSettings,
)
from inp_former_jax.field_names import (
  DISTILLATION_FIELDS,
  STUDENT_FIELDS,
  TEACHER_FIELDS,
  naming_fields,
)
from inp_former_jax.models import placement, vit
from inp_former_jax.processes.preemption import Preemption
from inp_former_jax.training import loop
from inp_former_jax.training.checkpoints import finiteness, workdir_lock
from inp_former_jax.training.model_state import DTYPES
from inp_former_jax.training.progress import announce
from inp_former_jax.training.state_layout import lay_out
from inp_former_jax.weights import (
  dinov2_rules,
  files,
  pretrained,
  quantisation,
)
from inp_former_jax.weights.encoders import get_encoder

INITIAL = ("teacher", "random")
_REPORT = "report.json"


@naming_fields(DISTILLATION_FIELDS)
@workdir_lock.held
def distill(
  config: ConfigDict,
  workdir: pathlib.Path,
  *,
  preemption: Preemption | None = None,
) -> held_out.R2:
  """Distils an encoder, resuming the run if it was interrupted.

  Args:
    config: The config, as `configs/distill.py` describes it.
    workdir: Folder for everything the run writes. An interrupted run resumes
      when it is started again with the same config and workdir.
    preemption: What tells the run to save and stop; None leaves signals alone.

  Returns:
    The held-out R2 by source of the views (or "all" for all of them), then by
    group.

  Raises:
    DataError: If a folder or a file of the images cannot be used; the error
      names it.
    CheckpointError: If the workdir cannot be used, is in use, belongs to
      another run, or holds targets of other views or of another teacher.
    FileNotFoundError, ValueError: If the teacher's or the initial student's
      weights cannot be found or read, or if a field of the config is wrong.
    Stopped: If the run was told to stop, and has saved its state.
  """
  preemption = preemption or Preemption()

  # 1. Views, and the teacher's groups, computed once.
  _check(config)
  config = config_files.with_absolute_paths(config)
  workdir_owner.require_same_start(config, workdir)
  mesh = sharding.make_mesh(**config.mesh)
  sharding.check_batch_size(mesh, config.batch_size)
  settings = _view_settings(config)
  views = {
    split: Views(settings, split, config.views[split]) for split in SPLITS
  }
  with naming_fields(TEACHER_FIELDS):
    teacher = load_teacher(config.teacher.encoder, config.teacher.weights)
  targets = prepare_targets(
    teacher, views, mesh, workdir, batch_size=config.batch_size
  )
  statistics = targets[TRAIN].statistics()

  # 2. Student, optimizer and compiled functions.
  total_steps = experiment.num_steps(config, len(targets[TRAIN]))
  build = functools.partial(_build, config, teacher.encoder.variant.width)
  graphdef, abstract = nnx.split(nnx.eval_shape(build))
  schedule = experiment.make_schedule(config, total_steps)
  optimizer = experiment.make_optimizer(config, schedule)
  layout = lay_out(optimizer, abstract, mesh)
  distill_step = make_distill_step(graphdef, optimizer, *statistics)
  compiled_step = jax.jit(
    placement.on_mesh(mesh)(distill_step),
    donate_argnums=0,
    out_shardings=(layout.shardings, sharding.replicated(mesh)),
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

  def initialise(teacher: Teacher):
    student = build()
    _initialise(student, config, teacher, targets[TRAIN], statistics)
    trainable = jax.device_put(nnx.state(student), layout.shardings[0])
    r2 = evaluate(trainable)
    print(held_out.format_table(r2, "Held-out R2 at first"))
    return trainable, layout.init_optimizer(trainable)

  def train_step(state, batch):
    return compiled_step(state, batch["image"], batch["groups"])

  def leave_student(step, state) -> held_out.R2:
    finiteness.require_finite(step, *state)
    r2 = evaluate(state[0])
    print(held_out.format_table(r2, f"Held-out R2 at step {step}"))
    held_out.require_finite(step, r2)
    report = {"step": step, "held_out_r2": r2} | identity
    _write(state[0]["encoder"], report, workdir)
    return r2

  # 3. Where to start: the newest checkpoint, or the beginning.
  checkpointing.require_room(config, workdir, layout.abstract)
  with checkpointing.open_for_run(config, workdir, identity) as checkpointer:
    start, state = loop.start_or_resume(
      checkpointer,
      batches,
      layout.abstract,
      functools.partial(initialise, teacher),
      total_steps,
    )
    del teacher
    workdir_owner.record(config, workdir)
    announce(loop.describe_start(start, total_steps))

    # 4. The loop; every evaluation writes the student.
    log = experiment.training_log(config, workdir, schedule, start, total_steps)
    with log:
      hooks = loop.Hooks(
        log=log.step,
        checkpoint=loop.saving(checkpointer, log, batches, preemption),
        evaluate=leave_student,
        was_evaluated=lambda step: _reported_step(workdir) >= step,
        is_save_due=checkpointing.save_times(config, start, total_steps).is_due,
        evaluate_every=config.evaluation.every_steps,
      )
      state = loop.run(
        train_step,
        state,
        batches,
        hooks,
        mesh,
        start=start,
        total_steps=total_steps,
        preemption=preemption,
      )
    batches.close()
  preemption.finish()

  # 5. The result.
  return leave_student(total_steps, state)


def _check(config: ConfigDict) -> None:
  field_ranges.check_fields(config, field_ranges.DISTILLATION)
  if jax.process_count() > 1:
    raise ValueError("Distillation runs in one process, on all its devices.")
  size = config.views.size
  patch_size = get_encoder(config.teacher.encoder).patch_size
  transforms.Preprocessing.from_sides(size, size).require_patches(patch_size)
  initial = config.student.initial
  file = os.path.expanduser(initial)
  if initial not in INITIAL and not os.path.isfile(file):
    raise ValueError(
      f"config.student.initial is {initial!r}; it can be "
      f"{' or '.join(INITIAL)}, or the file of a student to start from."
    )


def _view_settings(config: ConfigDict) -> ViewSettings:
  views = config.views
  return ViewSettings(
    folders=tuple(views.folders),
    shares=tuple(views.shares),
    size=views.size,
    min_area=views.min_area,
    seed=config.seed,
  )


def _build(config: ConfigDict, teacher_width: int) -> Student:
  with naming_fields(STUDENT_FIELDS):
    spec = get_encoder(config.student.encoder)
  rngs = nnx.Rngs(config.seed)
  encoder = vit.VisionTransformer(
    spec.variant,
    spec.num_registers,
    dtype=DTYPES[config.student.dtype],
    rngs=rngs,
  )
  return Student(encoder, teacher_width, rngs)


def _initialise(
  student: Student,
  config: ConfigDict,
  teacher: Teacher,
  targets: CachedTargets,
  statistics: tuple[np.ndarray, np.ndarray],
) -> None:
  """Sets the encoder by `config.student.initial`, then fits the heads to it."""
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
    with naming_fields(STUDENT_FIELDS):
      weights = pretrained.load_weights(
        config.student.encoder, config.student.initial, abstract
      )
    nnx.update(student.encoder, jax.tree.map(jnp.asarray, weights.state))
  student.fit_heads(images, standardise(groups, *statistics))


def _write(
  encoder: nnx.State, report: Mapping[str, Any], workdir: pathlib.Path
) -> None:
  arrays = dinov2_rules.named_arrays(encoder)
  files.write_arrays(workdir / "student.safetensors", arrays)
  small = quantisation.quantise(arrays)
  files.write_arrays(workdir / "student_int8.npz", small)
  # Last, because what is reported is not evaluated again after a kill.
  write_json(workdir / _REPORT, report)


def _reported_step(workdir: pathlib.Path) -> int:
  """Returns the step of the student in the workdir; 0 if there is none."""
  path = workdir / _REPORT
  if not path.is_file():
    return 0
  return json.loads(path.read_text(encoding="utf-8"))["step"]
