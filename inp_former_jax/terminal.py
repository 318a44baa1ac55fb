"""Text for a terminal, which names from data must not be able to control."""

import os
from collections.abc import Sequence


def escaped(text: object) -> str:
  r"""Returns a text that can be printed, whatever names it holds.

  A name in a data set may hold escape sequences, which move the cursor or
  change a terminal's title, or bytes that are no text. Every command prints
  its errors and the names of files by this function.

  Args:
    text: The text, or an object whose `str` is printed.

  Returns:
    The text with every character that is not printable written as in a Python
    string, e.g. "\x1b"; line breaks and tabs are kept.
  """
  text = str(text)
  if text.isprintable():
    return text
  return "".join(
    c if c.isprintable() or c in "\n\t" else _escape(c) for c in text
  )


def printable(name: object) -> str:
  """Returns the name of a file for an error, in a line of printable text.

  Unlike `escaped`, it sets a name apart from the text around it.

  Args:
    name: The path of the file, or an object whose `str` is its name.

  Returns:
    The name; in quotes and with escapes if it holds line breaks, other control
    characters or bytes that are no text.
  """
  text = os.fsdecode(name) if isinstance(name, bytes) else str(name)
  return text if text.isprintable() else repr(text)


def shortened(items: Sequence[object], most: int, separator: str = ", ") -> str:
  """Lists the first of many items for a message, and counts the others.

  Args:
    items: The items, such as names or numbers.
    most: The number of items to list.
    separator: The text between two items.

  Returns:
    The items in a line, such as "a, b and 1,024 more"; empty if there are none.
    After a semicolon they are "a; b; and 1,024 more".
  """
  text = separator.join(map(str, items[:most]))
  others = len(items) - most
  if others <= 0:
    return text
  return f"{text}{separator.rstrip(', ')} and {others:,} more"


def _escape(character: str) -> str:
  return character.encode("unicode_escape").decode("ascii")
