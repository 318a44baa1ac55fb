"""One of two processes fails or dies: both end, with a line that says why."""

import shutil
import signal

import pytest

from tests.faults import running

pytestmark = pytest.mark.slow


def kill_second_of(pair) -> str:
  """Kills a process; returns what the other has printed when it has ended."""
  pair[1].process.send_signal(signal.SIGKILL)
  assert pair[0].wait(60) not in (0, 143), pair[0].text
  return pair[0].text


def test_killed_in_a_step_or_a_save_ends_the_other_which_names_it(
  dataset_root, workdir, runs
):
  config = running.small_config(dataset_root, 4000)
  config.checkpoint.every_steps = 20
  runs.extend(running.start_pair(config, workdir))
  running.wait_for_step(45, workdir, *runs)
  text = kill_second_of(runs)
  assert "the process 1 gave no answer" in text
  assert "Traceback" not in text

  # While a checkpoint is being written, after a restart.
  saved = running.checkpoints(workdir)[-1]
  again = running.start_pair(config, workdir)
  runs.extend(again)
  folder = workdir / "checkpoints"
  running.wait_until(
    lambda: list(folder.glob("*orbax-checkpoint-tmp*")), *again
  )
  text = kill_second_of(again)
  assert f"Resumed at step {saved} of 4000." in text
  assert "the process 1 gave no answer" in text or "unhealthy" in text

  # And once more, from the last whole checkpoint; one process can do it alone.
  saved = running.checkpoints(workdir)[-1]
  last = running.start(config, workdir)
  runs.append(last)
  resumed = f"Resumed at step {saved} of 4000."
  running.wait_until(lambda: resumed in last.text, last)


def test_a_damaged_image_on_one_host_ends_both(
  dataset_root, workdir, runs, tmp_path
):
  shutil.copytree(dataset_root, tmp_path / "damaged")
  image = next((tmp_path / "damaged").rglob("train/good/*.png"))
  for path in image.parent.iterdir():
    path.write_bytes(path.read_bytes()[:100])
  config = running.small_config(dataset_root, 4000)
  other = running.small_config(tmp_path / "damaged", 4000)
  runs.extend(running.start_pair(config, workdir, other))
  for run in runs:
    assert run.wait() == 1, run.text
    assert str(image.parent) in run.text
    assert "Traceback" not in run.text
  assert "process 1 ended" in runs[0].text
