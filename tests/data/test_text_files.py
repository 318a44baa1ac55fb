"""Lists of images that hang, do not end, or are too deep for a parser."""

import os
import threading

import pytest

from inp_former_jax.data import text_files
from inp_former_jax.data.errors import DataError
from inp_former_jax.data.layouts.registry import read_layout


def error_of(function, *arguments) -> str:
  """The error, from a thread, so that waiting for ever is an error too."""
  messages = []

  def work():
    with pytest.raises(DataError) as caught:
      function(*arguments)
    messages.append(str(caught.value))

  thread = threading.Thread(target=work, daemon=True)
  thread.start()
  thread.join(60)
  assert messages, "it hangs, or raises another error"
  assert "\n" not in messages[0] and len(messages[0]) < 600
  return messages[0]


LISTS = {
  "realiad": "realiad_jsons/realiad_jsons/nut.json",
  "visa": "split_csv/1cls.csv",
  "folder": "split.jsonl",
}


def make_place(tmp_path, layout: str):
  (tmp_path / "realiad_512" / "nut").mkdir(parents=True)
  path = tmp_path / LISTS[layout]
  path.parent.mkdir(parents=True, exist_ok=True)
  return path


@pytest.mark.parametrize("layout", LISTS)
def test_a_list_that_is_a_named_pipe_or_a_device(tmp_path, layout):
  path = make_place(tmp_path, layout)
  os.mkfifo(path)
  message = error_of(read_layout, layout, tmp_path)
  assert f"{path} is a named pipe (FIFO); expected a list" in message
  path.unlink()
  path.symlink_to("/dev/zero")
  assert "is a device" in error_of(read_layout, layout, tmp_path)


@pytest.mark.parametrize("layout", LISTS)
def test_a_list_that_is_a_link_to_nothing(tmp_path, layout):
  path = make_place(tmp_path, layout)
  path.symlink_to("gone")
  assert str(path) in error_of(read_layout, layout, tmp_path)


@pytest.mark.parametrize("layout", LISTS)
def test_a_list_that_is_too_large(tmp_path, layout):
  path = make_place(tmp_path, layout)
  with open(path, "wb") as file:
    file.truncate(10**12)  # takes no space on the disk
  assert f"{path} has 1000000000000 bytes" in error_of(
    read_layout, layout, tmp_path
  )


@pytest.mark.parametrize("layout", ["realiad", "folder"])
@pytest.mark.parametrize(
  "content, words",
  [
    (b"[" * 200_000, "nested too deeply"),
    (b'{"train": ' * 200_000, "nested too deeply"),
    (b'{"train": ' + b"9" * 5_000 + b"}", "too many digits"),
    (b"{", "line 1, column 2"),
  ],
)
def test_json_that_is_no_list(tmp_path, layout, content, words):
  path = make_place(tmp_path, layout)
  path.write_bytes(content)
  message = error_of(read_layout, layout, tmp_path)
  assert str(path) in message and words in message


def test_json_that_is_not_utf_8():
  with pytest.raises(
    DataError, match="here is not valid JSON: it cannot be read as UTF"
  ):
    text_files.parse_json(b'{"a": "\xff"}', "here")


def test_large_values_are_shortened_in_errors(tmp_path):
  path = make_place(tmp_path, "realiad")
  path.write_text('{"train": ["%s"], "test": []}' % ("x" * 100_000))
  assert "train[0]: is 'xxx" in error_of(read_layout, "realiad", tmp_path)
