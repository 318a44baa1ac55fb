"""Training: reads top to bottom like a table of contents."""

import os

import jax
from ml_collections import ConfigDict

from inp_former_jax import evaluate, experiment, sharding
from inp_former_jax.data import loader
from inp_former_jax.data.augment import AUGMENTATIONS
from inp_former_jax.evaluation.report import write_report
from inp_former_jax.evaluation.submission import write_predictions
from inp_former_jax.inference.predict_step import make_predict_step
from inp_former_jax.training import checkpoint
from inp_former_jax.training.progress import TrainingLog
from inp_former_jax.training.train_step import make_train_step


def num_steps(config: ConfigDict, num_records: int) -> int:
  """Steps of the whole run: `config.steps`, or else `config.epochs`."""
  total = config.steps or config.epochs * loader.steps_per_epoch(
    num_records, config.batch_size
  )
  if total < 1:
    raise ValueError(
      f"config.steps={config.steps} and config.epochs={config.epochs} make no "
      "training step; set one of them above 0."
    )
  return total


def train_and_evaluate(
  config: ConfigDict, workdir: str | os.PathLike
) -> evaluate.Evaluation:
  """Trains, or goes on training, then evaluates.

  Args:
    config: As `configs/common.py` describes it.
    workdir: Folder for checkpoints, logs and results. A run that was stopped
      goes on when it is started again with the same config and workdir, and
      ends with the very parameters of an uninterrupted run.

  Returns:
    The metrics of the test set; none where there are no test images.

  Raises:
    DataError: The data set, or one of its files; named.
    CheckpointError: The workdir, or a checkpoint of another run.
    ValueError: A field of the config.
  """
  # 1. Data, mesh, and the checks that need no model.
  workdir = checkpoint.prepare_workdir(workdir, needed=0)
  mesh = sharding.make_mesh(**config.mesh)
  sharding.check_batch_size(mesh, config.batch_size)
  evaluate.check_settings(config)
  preprocessing = experiment.preprocessing(config)
  dataset = experiment.read_dataset(config, workdir)
  experiment.log_shots(config, dataset, workdir)
  augmented = config.data.shots > 0
  ways = len(AUGMENTATIONS) if augmented else 1
  total_steps = num_steps(config, ways * len(dataset.train))
  batches = loader.training_batches(
    dataset.train,
    preprocessing,
    batch_size=config.batch_size,
    seed=config.seed,
    augmented=augmented,
    sampling=config.data.sampling,
    num_workers=config.data.num_workers,
    num_threads=config.data.num_threads,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )

  # 2. Model, optimizer, and the two compiled functions.
  model = experiment.create_model(config, mesh, workdir)
  schedule = experiment.make_schedule(config, total_steps)
  optimizer = experiment.make_optimizer(config, schedule)
  abstract_opt = jax.eval_shape(optimizer.init, model.trainable)
  shardings = sharding.parameter_shardings(
    mesh, (model.trainable, abstract_opt)
  )
  init = jax.jit(optimizer.init, out_shardings=shardings[1])
  state = (model.trainable, init(model.trainable))
  train_step = jax.jit(
    make_train_step(model.graphdef, optimizer, **config.loss),
    donate_argnums=0,
    out_shardings=(shardings, sharding.replicated(mesh)),
  )
  predict_step = make_predict_step(
    model.graphdef,
    mesh,
    size=config.evaluation.size,
    top_fraction=config.evaluation.top_fraction,
  )

  def evaluate_now(trainable, step):
    return evaluate.evaluate(
      predict_step, trainable, model.frozen, dataset, config, mesh, step=step
    )

  # 3. Where to start. In this order:
  #    (a) the newest checkpoint of the workdir, which must be of this config
  #        and this encoder;
  #    (b) the beginning.
  keep = config.checkpoint.keep
  state_bytes = sum(x.nbytes for x in jax.tree.leaves(state))
  checkpoint.prepare_workdir(workdir, (keep + 1) * state_bytes + 50_000_000)
  identity = experiment.identity(config, dataset, model.encoder_sha256)
  folder = workdir / "checkpoints"
  with checkpoint.Checkpointer(folder, identity, keep=keep) as checkpointer:
    start = checkpointer.latest_step or 0  # 0: a converted checkpoint
    if start > total_steps:
      raise checkpoint.CheckpointError(
        f"{folder} holds step {start} and the run has {total_steps} steps "
        "only. Set config.steps or config.epochs as before."
      )
    if checkpointer.latest_step is not None:
      *state, position = checkpointer.restore(
        *checkpoint.abstract(state, shardings)
      )
      batches.set_state(position)
    state = tuple(state)
    del model.trainable  # donated by the first step

    # 4. The loop.
    data = sharding.batch_sharding(mesh)
    with TrainingLog(config, workdir, schedule, start, total_steps) as log:
      for step in range(start + 1, total_steps + 1):
        batch = next(batches)
        batch = {k: sharding.to_global(v, data) for k, v in batch.items()}
        state, metrics = train_step(
          state, model.frozen, batch["image"], batch.get("augmentation")
        )
        log.step(step, metrics)
        if _due(step, config.checkpoint.every_steps) or step == total_steps:
          log.flush()  # a loss that is not finite must not be saved
          checkpointer.save(step, *state, batches.get_state())
        evaluate_here = _due(step, config.evaluation.every_steps)
        if evaluate_here and step < total_steps and dataset.test:
          log.evaluation(step, evaluate_now(state[0], step))

  # 5. The result.
  result = evaluate_now(state[0], total_steps)
  write_report(result, config, workdir)
  write_predictions(
    lambda images: predict_step(state[0], model.frozen, images),
    dataset.unlabelled,
    config,
    mesh,
    workdir,
  )
  return result


def _due(step: int, every: int) -> bool:
  return every > 0 and step % every == 0
