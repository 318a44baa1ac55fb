"""Files that appear whole or not at all."""

import dataclasses
import json
import math

import pytest

from inp_former_jax.atomic import replacing, write_json


@dataclasses.dataclass(frozen=True)
class Point:
  x: float
  tags: tuple[str, ...] = ()


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path):
  path = tmp_path / "new" / "a.txt"
  with replacing(path) as part:
    part.write_text("one")
    assert not path.exists()
  with pytest.raises(KeyboardInterrupt), replacing(path) as part:
    part.write_text("half of t")
    raise KeyboardInterrupt
  assert path.read_text() == "one"
  assert list(path.parent.iterdir()) == [path]


def test_json_is_indented_ascii_that_ends_in_a_line_break(tmp_path):
  path = tmp_path / "new" / "a.json"
  value = {"name": "caf\u00e9", "points": [Point(1.5, ("a",))], 3: None}
  write_json(path, value)
  assert path.read_bytes() == (
    b'{\n  "name": "caf\\u00e9",\n  "points": [\n    {\n      "x": 1.5,\n'
    b'      "tags": [\n        "a"\n      ]\n    }\n  ],\n  "3": null\n}\n'
  )
  assert json.loads(path.read_text())["name"] == "caf\u00e9"


@pytest.mark.parametrize(
  "value, error, message",
  [
    ([math.nan], ValueError, "a.json cannot be written: .*not JSON"),
    (Point(math.inf), ValueError, "a.json cannot be written: .*not JSON"),
    ({"a": {1}}, TypeError, "set cannot be written as JSON"),
    (Point, TypeError, "type cannot be written as JSON"),
  ],
)
def test_what_json_has_no_form_for_leaves_the_file(
  tmp_path, value, error, message
):
  path = tmp_path / "a.json"
  write_json(path, 1)
  with pytest.raises(error, match=message):
    write_json(path, value)
  assert path.read_text() == "1\n"
  assert list(tmp_path.iterdir()) == [path]
