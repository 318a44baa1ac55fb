"""One of two processes fails or dies: both end, with a line that says why."""

import shutil
import signal

import pytest

from tests.faults import running

pytestmark = pytest.mark.slow


def send(pair, dying: int, number: signal.Signals) -> str:
  """Ends a process; returns what the other has printed when it has ended."""
  pair[dying].process.send_signal(number)
  other = pair[1 - dying]
  assert other.wait(60) == 1, other.text
  assert "Traceback" not in other.text
  assert "Terminating process because" not in other.text
  return other.text


@pytest.mark.parametrize("dying", [pytest.param(1, marks=pytest.mark.long), 0])
def test_killed_in_a_step_or_a_save_ends_the_other_which_names_it(
  dataset_root, workdir, runs, dying
):
  config = running.small_config(dataset_root, 4000)
  config.checkpoint.every_steps = 20
  runs.extend(running.start_pair(config, workdir))
  running.wait_for_step(45, workdir, *runs)
  text = send(runs, dying, signal.SIGKILL)
  assert f"process {dying} gave no answer" in text

  # While a checkpoint is being written, after a restart.
  saved = running.checkpoints(workdir)[-1]
  again = running.start_pair(config, workdir)
  runs.extend(again)
  unfinished = "checkpoints/*orbax-checkpoint-tmp*"
  left = set(workdir.glob(unfinished))  # if the kill fell in a save
  running.wait_until(lambda: set(workdir.glob(unfinished)) - left, *again)
  text = send(again, dying, signal.SIGKILL)
  assert f"process {dying} gave no answer" in text
  assert f"Resumed at step {saved} of 4000." in again[0].text

  # And once more, from the last whole checkpoint; one process can do it alone.
  saved = running.checkpoints(workdir)[-1]
  last = running.start(config, workdir)
  runs.append(last)
  resumed = f"Resumed at step {saved} of 4000."
  running.wait_until(lambda: resumed in last.text, last)


@pytest.mark.parametrize("dying", [1, pytest.param(0, marks=pytest.mark.long)])
def test_a_process_that_hangs_ends_the_other_which_names_it(
  dataset_root, workdir, runs, dying
):
  runs.extend(
    running.start_pair(running.small_config(dataset_root, 4000), workdir)
  )
  running.wait_for_step(5, workdir, *runs)
  # Its connections stay open, so that no exchange with it fails.
  text = send(runs, dying, signal.SIGSTOP)
  assert f"process {dying} gave no sign of life for 27 seconds" in text


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
