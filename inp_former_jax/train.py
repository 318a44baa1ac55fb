"""Trains a model, or resumes a run, and evaluates it."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from inp_former_jax import (
  checkpointing,
  evaluate,
  experiment,
  sharding,
  thresholds,
  training_inputs,
  workdir_owner,
)
from inp_former_jax.data import unreadable
from inp_former_jax.evaluation.results import Evaluation
from inp_former_jax.field_names import naming_fields
from inp_former_jax.inference import trained
from inp_former_jax.processes import agreement
from inp_former_jax.processes.preemption import Preemption
from inp_former_jax.training import identity as identity_of
from inp_former_jax.training import loop
from inp_former_jax.training.checkpoints import (
  saved_runs,
  workdir_lock,
)
from inp_former_jax.training.input_waits import InputWaits
from inp_former_jax.training.model_state import ModelState
from inp_former_jax.training.progress import announce
from inp_former_jax.training.start_up import StartUp
from inp_former_jax.training.state_layout import StateLayout, lay_out
from inp_former_jax.training.train_step import State, jit_train_step


@naming_fields()
@workdir_lock.held
def train_and_evaluate(
  config: ConfigDict,
  workdir: pathlib.Path,
  *,
  preemption: Preemption | None = None,
) -> Evaluation:
  """Trains one model, or resumes its training, then evaluates it.

  Args:
    config: The config of the run; configs/common.py describes its fields.
    workdir: Folder for checkpoints, logs and results. A run that was stopped
      is resumed when it is started again with the same config and workdir,
      and ends with exactly the parameters of an uninterrupted run.
    preemption: What tells the run to save and stop; None leaves signals alone.

  Returns:
    The metrics of the test set; none if there are no test images.

  Raises:
    DataError: If the data set, or one of its files, cannot be used.
    CheckpointError: If the workdir cannot be written, is in use, or belongs to
      another run.
    ValueError: If a field of the config has a value that cannot be used, or
      the processes disagree.
    Stopped: If the run was told to stop, and has saved its state.
  """
  start_up = StartUp()
  preemption = preemption or Preemption()

  # 1. Data, mesh, and the checks that need no model.
  evaluate.check_settings(config)
  workdir_owner.require_same_start(config, workdir)
  mesh = sharding.make_mesh(**config.mesh)
  sharding.check_batch_size(mesh, config.batch_size)
  preprocessing = experiment.preprocessing(config)
  announce("Reading the data set ...")
  dataset = experiment.read_dataset(config, workdir)
  announce(experiment.describe(dataset))
  checkpointing.check(config, dataset)
  experiment.log_shots(config, dataset, workdir)
  total_steps = experiment.num_steps(
    config, experiment.num_examples(config, len(dataset.train))
  )
  agreement.require_same(
    {"steps": total_steps, "mesh": mesh.shape}
    | identity_of.image_lists(dataset)
  )
  inputs = training_inputs.training_inputs(
    config, dataset, preprocessing, mesh, workdir
  )

  # 2. Model, optimizer, and the two compiled functions.
  announce(f"Loading the encoder {config.model.encoder} ...")
  model = experiment.create_model(config, mesh, workdir)
  schedule = experiment.make_schedule(config, total_steps)
  optimizer = experiment.make_optimizer(config, schedule)
  layout = lay_out(optimizer, model.abstract_trainable, mesh)
  compiled_step = jit_train_step(
    model.graphdef, optimizer, mesh, layout.shardings, **config.loss
  )
  answering = trained.from_state(
    model,
    model.abstract_trainable,
    mesh,
    preprocessing=preprocessing,
    size=config.evaluation.size,
    top_fraction=config.evaluation.top_fraction,
  )

  def train_step(state, batch):
    return compiled_step(state, model.frozen, **inputs.arguments(batch))

  # 3. The start: the newest checkpoint of the workdir, which must belong to
  #    this config and this encoder; or else the parameters that
  #    `config.init_from` names; or else random ones.
  checkpointing.require_room(config, workdir, layout.abstract)
  identity = experiment.identity(config, dataset, model.encoder_sha256)
  agreement.require_same({"encoder.sha256": model.encoder_sha256})
  best = checkpointing.best_checkpoint(config, workdir)
  initialise = functools.partial(_initialise, config, model, layout, identity)
  with checkpointing.open_for_run(
    config, workdir, identity, best
  ) as checkpointer:
    start, state = loop.start_or_resume(
      checkpointer, inputs.batches, layout.abstract, initialise, total_steps
    )
    if best:
      best.forget_after(start)

    workdir_owner.record(config, workdir)
    if start < total_steps:
      with start_up.excluding():
        inputs.prepare(model)
    announce(loop.describe_start(start, total_steps))

    # 4. The loop.
    waits = InputWaits(inputs.batches)
    with experiment.training_log(
      config, workdir, schedule, start, total_steps, waits
    ) as log:

      def evaluate_now(step, state):
        now = answering.at(step, state[0])
        with start_up.excluding():
          result = evaluate.evaluate(now, dataset, config)
        if best:
          best.note(step, result.mean)
        # Last, because what is logged is not evaluated again after a kill.
        log.evaluation(step, result)

      def log_step(step, metrics):
        start_up.first_step(metrics)
        log.step(step, metrics)

      hooks = loop.Hooks(
        log=log_step,
        checkpoint=loop.saving(checkpointer, log, inputs.batches, preemption),
        evaluate=evaluate_now,
        was_evaluated=log.was_evaluated,
        is_save_due=checkpointing.save_times(config, start, total_steps).is_due,
        evaluate_every=config.evaluation.every_steps if dataset.test else 0,
      )
      state = loop.run(
        train_step,
        state,
        waits,
        hooks,
        mesh,
        start=start,
        total_steps=total_steps,
        preemption=preemption,
      )
    inputs.close()
  preemption.finish()

  # 5. The result.
  if skipped := unreadable.describe_skipped(workdir):
    announce(skipped)
  answering = answering.at(total_steps, state[0])
  thresholds.calibrate_run(
    answering, dataset, config, workdir, just_trained=start < total_steps
  )
  if dataset.test:
    announce(f"Evaluating {len(dataset.test)} test images ...")
  result = evaluate.evaluate_and_report(
    answering, dataset, config, workdir, trained_in=workdir
  )
  if best:
    best.note(total_steps, result.mean)
  return result


def _initialise(
  config: ConfigDict,
  model: ModelState,
  layout: StateLayout,
  identity: Mapping[str, Any],
) -> State:
  """Returns the state of a run that has no checkpoint yet."""
  if config.init_from:
    source_step, trainable = saved_runs.restore_initial(
      config.init_from, model.abstract_trainable, identity
    )
    announce(f"Starting from step {source_step} of {config.init_from}.")
  else:
    trainable = model.initial_trainable()
  return trainable, layout.init_optimizer(trainable)
