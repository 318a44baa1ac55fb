"""Starts commands in real processes, and waits for what they do."""

import dataclasses
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

from ml_collections import ConfigDict

from tests.conftest import ROOT, main_command, tiny_config

PATIENCE = 240.0  # a machine that has other work


def small_config(root: pathlib.Path, steps: int) -> ConfigDict:
  """Steps of some milliseconds."""
  config = tiny_config(root)
  config.data.resize = config.data.crop = 28
  config.evaluation.size = 32
  config.evaluation.grid_images = 1
  config.steps = steps
  return config


@dataclasses.dataclass
class Run:
  """A process of a command, and what it prints."""

  process: subprocess.Popen
  output: pathlib.Path

  @property
  def text(self) -> str:
    return self.output.read_text()

  def wait(self, seconds: float = PATIENCE) -> int:
    return self.process.wait(seconds)


def start(
  config: ConfigDict, workdir: pathlib.Path, *flags: str, **environment: str
) -> Run:
  """Starts the main command."""
  command = main_command(config, workdir, *flags)
  return launch(command, workdir, **environment)


def launch(
  command: list[str], workdir: pathlib.Path, **environment: str
) -> Run:
  workdir.mkdir(exist_ok=True)
  output = workdir / f"output{len(list(workdir.glob('output*')))}.txt"
  with open(output, "w") as file:
    process = subprocess.Popen(
      command,
      cwd=ROOT,
      env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"} | environment,
      stdout=file,
      stderr=file,
    )
  return Run(process, output)


def free_port() -> int:
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return free.getsockname()[1]


def pair_flags(port: int, index: int, count: int = 2) -> list[str]:
  return [
    "--distributed",
    f"--coordinator=127.0.0.1:{port}",
    f"--num_processes={count}",
    f"--process_id={index}",
  ]


def start_pair(
  config: ConfigDict, workdir: pathlib.Path, other: ConfigDict | None = None
) -> list[Run]:
  """Starts two processes, the second one with another config if given."""
  port = free_port()
  return [
    start(each, workdir, *pair_flags(port, index))
    for index, each in enumerate((config, other or config))
  ]


def stop(*runs: Run) -> None:
  """Leaves no process behind, whatever the test has found."""
  for run in runs:
    if run.process.poll() is None:
      run.process.send_signal(signal.SIGKILL)
    run.process.wait()


def last_step(workdir: pathlib.Path) -> int:
  log = workdir / "log.jsonl"
  lines = log.read_text().splitlines() if log.exists() else []
  try:
    return json.loads(lines[-1])["step"] if lines else 0
  except ValueError:  # half a line
    return 0


def wait_until(condition, *runs: Run) -> None:
  deadline = time.monotonic() + PATIENCE
  while not condition():
    for run in runs:
      assert run.process.poll() is None, run.text
    assert time.monotonic() < deadline, [run.text for run in runs]
    time.sleep(0.005)


def wait_for_step(step: int, workdir: pathlib.Path, *runs: Run) -> None:
  wait_until(lambda: last_step(workdir) >= step, *runs)


def assert_stopped(run: Run, code: int, name: str) -> int:
  """Returns the step at which a run says, once, that it was stopped."""
  assert run.wait() == code, run.text
  assert "Traceback" not in run.text
  found = re.findall(rf"^Stopped by {name}.* at step (\d+) of", run.text, re.M)
  assert len(found) == 1, run.text
  return int(found[0])


def checkpoints(workdir: pathlib.Path) -> list[int]:
  names = (path.name for path in (workdir / "checkpoints").iterdir())
  return sorted(int(name) for name in names if name.isdecimal())
