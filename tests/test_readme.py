"""README's commands and Python, and the example, run as they stand."""

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.test_documentation import EXAMPLE, run_commands


@pytest.mark.slow
def test_commands_run(tmp_path):
  run_commands(ROOT / "README.md", tmp_path)


@pytest.mark.slow
def test_example_trains_a_model_that_finds_defects(tmp_path):
  run = subprocess.run(
    [sys.executable, EXAMPLE],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    timeout=900,
  )
  assert run.returncode == 0, run.stdout + run.stderr
  found = re.search(r"'image_auroc': (?:\w+\.\w+\()?([\d.]+)", run.stdout)
  assert found and 0.7 < float(found[1]) <= 1, run.stdout
