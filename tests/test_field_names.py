"""Errors of the library, in the words of the config."""

import pytest

from inp_former_jax import config_files, field_names, train
from inp_former_jax.data.errors import DataError
from inp_former_jax.field_names import naming_fields, with_field_names

TABLES = {
  "TRAINING_FIELDS": "mvtec",
  "SOURCE_FIELDS": "mvtec",
  "DISTILLATION_FIELDS": "distill",
  "TEACHER_FIELDS": "distill",
  "STUDENT_FIELDS": "distill",
}


@pytest.mark.parametrize("table, config", TABLES.items())
def test_every_name_is_a_field_of_the_config_it_is_for(table, config):
  fields = config_files.load_config(config)
  for field in getattr(field_names, table).values():
    section, _, name = field.rpartition(".")
    assert name in (fields[section] if section else fields), field


def raise_ours(kind):
  """Raises an error as a function of the package does."""
  source = "def raiser(kind): raise kind('Check `root`.') from KeyError('x')"
  namespace = {"__name__": "inp_former_jax.somewhere"}
  exec(source, namespace)
  namespace["raiser"](kind)


def test_names_become_fields_and_flags():
  text = "`dtype` is 1; set `dtype`=float32, `other`=2 or other."
  assert with_field_names(text) == (
    "config.model.dtype is 1; set --config.model.dtype=float32, `other`=2 or "
    "other."
  )


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError, RuntimeError])
def test_a_jobs_error_keeps_its_kind_and_cause(kind):
  @naming_fields()
  def job():
    """Docstring."""
    raise_ours(kind)

  assert job.__doc__ == "Docstring."
  with pytest.raises(kind, match="Check config.data.root.") as error:
    job()
  assert isinstance(error.value.__cause__, KeyError)


def test_other_errors_stay_as_they_are():
  with pytest.raises(OSError) as error, naming_fields():
    raise OSError(2, "No such file", "`root`")
  assert error.value.args == (2, "No such file")
  # Not of this package: a library may mean something else by the name.
  with pytest.raises(ValueError, match="Check `root`"), naming_fields():
    raise ValueError("Check `root`.")


def test_a_source_is_named_where_a_data_set_is_one_of_several(config, tmp_path):
  config.data.sources = (("visa", str(tmp_path / "no_such")),)
  with pytest.raises(DataError, match="Check config.data.sources"):
    train.train_and_evaluate(config, tmp_path / "run")
