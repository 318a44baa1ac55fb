"""Applies the options after a config's name, e.g. mvtec:few_shot,shots=2.

| option | effect |
| --- | --- |
| single_class | one model per category in turn, one table at the end |
| few_shot, shots=K | K images per category (default 4), each in 22 ways |
| small, base, large | the encoder (Table S1) |
| size=224, 280, ... | the crop in pixels; the resize is 8/7 of it [1] |
| inps=M | number of INPs (Fig. 6) |
| lambda=X | weight of the coherence loss (Fig. S1) |
| no_inps, no_coherence, no_mining | without a part of the method (Table 5) |

[1] In a config that does not crop, such as folder.py, they are equal.
"""

import difflib
from collections.abc import Callable

from ml_collections import ConfigDict


def _single_class(config: ConfigDict) -> None:
  config.protocol = "single_class"


def _few_shot(config: ConfigDict) -> None:
  config.data.shots = config.data.shots or 4


def _encoder(size: str) -> Callable[[ConfigDict], None]:
  def choose(config: ConfigDict) -> None:
    config.model.encoder = f"dinov2reg_vit_{size}_14"

  return choose


def _no_inps(config: ConfigDict) -> None:
  config.model.use_inps = False


def _no_coherence(config: ConfigDict) -> None:
  config.loss.coherence_weight = 0.0


def _no_mining(config: ConfigDict) -> None:
  config.loss.gamma = 0.0


def _shots(config: ConfigDict, value: str) -> None:
  config.data.shots = _positive(value)


def _size(config: ConfigDict, value: str) -> None:
  crop = _positive(value)
  whole = config.data.resize == config.data.crop  # nothing is cropped away
  config.data.crop = crop
  config.data.resize = crop if whole else round(crop * 8 / 7)


def _inps(config: ConfigDict, value: str) -> None:
  config.model.num_prototypes = _positive(value)


def _positive(value: str) -> int:
  number = int(value)
  if number < 1:
    raise ValueError
  return number


def _lambda(config: ConfigDict, value: str) -> None:
  config.loss.coherence_weight = float(value)


_WORDS: dict[str, Callable[[ConfigDict], None]] = {
  "single_class": _single_class,
  "few_shot": _few_shot,
  "small": _encoder("small"),
  "base": _encoder("base"),
  "large": _encoder("large"),
  "no_inps": _no_inps,
  "no_coherence": _no_coherence,
  "no_mining": _no_mining,
}
_VALUES: dict[str, Callable[[ConfigDict, str], None]] = {
  "shots": _shots,
  "size": _size,
  "inps": _inps,
  "lambda": _lambda,
}


def apply(config: ConfigDict, options: str | None) -> ConfigDict:
  """Applies options to a config.

  Args:
    config: The config, which is changed in place.
    options: The options, separated by commas, e.g. "few_shot,shots=2"; empty
      or None for no options.

  Returns:
    The same config.

  Raises:
    ValueError: If an option is unknown, in which case the nearest known one is
      named, or if its value is not a number.
  """
  for option in filter(None, (options or "").split(",")):
    name, equals, value = option.partition("=")
    if name in _WORDS and not equals:
      _WORDS[name](config)
    elif name in _VALUES and value:
      try:
        _VALUES[name](config, value)
      except ValueError as error:
        number = "a number" if name == "lambda" else "a whole number above 0"
        raise ValueError(
          f"The option {option!r} of the config needs {number}; found "
          f"{value!r}."
        ) from error
    else:
      raise ValueError(_unknown(option, name))
  return config


def _unknown(option: str, name: str) -> str:
  known = [*_WORDS, *(f"{name}=..." for name in _VALUES)]
  nearest = difflib.get_close_matches(name, [*_WORDS, *_VALUES], n=1)
  hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
  return (
    f"The config has no option {option!r}.{hint} It has {', '.join(known)}, "
    "separated by commas."
  )
