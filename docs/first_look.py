"""Draws README's picture: three good and three bad parts with their maps.

python docs/first_look.py workdir/demo docs/first_look.png
"""

import pathlib
import sys

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import inp_former_jax as inp
from inp_former_jax.evaluation import figures
from inp_former_jax.inference.colours import colour_scale

SIZES = {"dpi": 110, "facecolor": "white"}
BAD = {"board": "missing_component", "cloth": "hole", "washer": "chip"}


def main(workdir: str, target: str) -> None:
  """Scores the demo's test images and draws one good and bad one of each."""
  model = inp.load_model(workdir)
  data = inp.read_layout("mvtec", pathlib.Path(workdir) / "demo_data")
  records = data.test
  images = np.stack(
    [inp.load_image(record.image, model.preprocessing) for record in records]
  )
  answer = model.predict(images)
  maps, scores = np.asarray(answer.anomaly_map), np.asarray(answer.image_score)
  labels = np.array([record.label for record in records])
  scale = colour_scale(maps[labels == 0], maps[labels == 1])

  figure = Figure(figsize=(9.2, 3.5), **SIZES)
  chosen = choose(records)
  axes = figure.subplots(2, len(chosen), squeeze=False)
  figure.subplots_adjust(0.005, 0.005, 0.995, 0.92, wspace=0.03, hspace=0.16)
  for (above, below), i in zip(axes.T, chosen, strict=True):
    kind = "good" if labels[i] == 0 else records[i].defect.replace("_", " ")
    above.imshow(images[i])
    above.set_title(f"{records[i].category}: {kind}", fontsize=8, pad=3)
    below.imshow(figures.overlay(images[i], maps[i], scale.vmin, scale.vmax))
    below.set_title(f"score {scores[i]:.3f}", fontsize=8, pad=3)
  for cell in axes.flat:
    cell.axis("off")
  FigureCanvasAgg(figure).print_png(target)


def choose(records) -> list[int]:
  """A good image of each category, then one of its defects."""
  keys = [(r.category, r.defect) for r in records]
  wanted = [(name, "good") for name in BAD] + list(BAD.items())
  return [keys.index(key) for key in wanted]


if __name__ == "__main__":
  main(*sys.argv[1:])
