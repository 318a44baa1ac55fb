"""Errors of the library, in the words of the config."""

import pytest

from inp_former_jax import config_files
from inp_former_jax.field_names import (
  FIELDS,
  naming_fields,
  with_field_names,
)


def test_every_name_is_a_field():
  configs = [config_files.load_config(name) for name in ("mvtec", "distill")]
  for field in FIELDS.values():
    section, _, name = field.rpartition(".")
    assert any(
      name in (config[section] if section else config)
      for config in configs
      if not section or section in config
    ), field


def test_names_become_fields_and_flags():
  text = "`dtype` is 1; set `dtype`=float32, `other`=2 or other."
  assert with_field_names(text) == (
    "config.model.dtype is 1; set --config.model.dtype=float32, `other`=2 or "
    "other."
  )


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError, RuntimeError])
def test_a_jobs_error_keeps_its_kind_and_cause(kind):
  @naming_fields
  def job():
    """Docstring."""
    raise kind("Check `root`.") from KeyError("x")

  assert job.__doc__ == "Docstring."
  with pytest.raises(kind, match="Check config.data.root.") as error:
    job()
  assert isinstance(error.value.__cause__, KeyError)


def test_other_errors_stay_as_they_are():
  @naming_fields
  def job():
    raise OSError(2, "No such file", "`root`")

  with pytest.raises(OSError) as error:
    job()
  assert error.value.args == (2, "No such file")
