"""Ctrl-C and launchers signal workers too; a run still needs them to save."""

import signal

import psutil
from PIL import Image

from inp_former_jax.data import loader
from inp_former_jax.data.records import Record
from inp_former_jax.data.transforms import Preprocessing


def test_workers_go_on_after_a_signal_to_the_group(tmp_path):
  for i in range(12):
    Image.new("L", (16, 16), i).save(tmp_path / f"{i}.png")
  records = [Record(tmp_path / f"{i}.png", "nut", 0, "good") for i in range(12)]
  batches = loader.training_batches(
    records,
    Preprocessing((14, 14), (14, 14)),
    batch_size=4,
    seed=1,
    num_workers=1,
  )
  next(batches)
  worker = next(
    child
    for child in psutil.Process().children(recursive=True)
    if "resource_tracker" not in " ".join(child.cmdline())
  )
  worker.send_signal(signal.SIGINT)
  worker.send_signal(signal.SIGTERM)
  for _ in range(12):  # more than it had ready
    next(batches)
  assert worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE
  batches.close()
  worker.wait(timeout=30)
