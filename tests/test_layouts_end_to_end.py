"""Every layout, trained and evaluated in a few steps."""

import json

import numpy as np
import pytest
from PIL import Image

from inp_former_jax import protocols
from tests.conftest import tiny_config
from tests.data.layouts import layout_trees


def settings(layout: str, root) -> object:
  config = tiny_config(root)
  config.data.layout = layout
  config.data.resize, config.data.crop = 48, 42
  config.batch_size = config.evaluation.batch_size = 4
  config.evaluation.size = 32
  config.steps = 2
  return config


FAST = ("folder", "realiad")  # the others take as long and go the same way


@pytest.mark.parametrize(
  "name",
  [
    name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
    for name in layout_trees.TREES
  ],
)
def test_trains_and_evaluates(name, tmp_path):
  layout, make = layout_trees.TREES[name]
  config = settings(layout, make(tmp_path / "data"))
  result = protocols.train_and_evaluate(config, tmp_path / "run")
  assert result.categories
  for category in result.categories.values():
    assert category.normal and category.defective
    assert category.without_mask == 0
    assert 0 <= category.metrics["pixel_auroc"] <= 1
    assert 0 <= category.metrics["image_auroc"] <= 1
  content = json.loads((tmp_path / "run" / "metrics.json").read_text())
  assert content["categories"].keys() == result.categories.keys()
  if layout == "realiad":  # five views each: per object too
    assert 0 <= result.mean["sample_auroc"] <= 1
    header = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    assert header.endswith("sample_auroc,sample_ap,sample_f1max")
  else:
    assert "sample_auroc" not in result.mean


def test_private_test_images_get_maps_and_scores(tmp_path):
  root = layout_trees.mvtec_ad2(tmp_path / "data")
  config = settings("mvtec_ad2", root)
  protocols.train_and_evaluate(config, tmp_path / "run")
  folder = tmp_path / "run" / "predictions"
  lines = (folder / "scores.csv").read_text().splitlines()
  assert lines[0] == "category,kind,image,score"
  assert len(lines) == 3 and lines[1].startswith("can,test_private,000_regular")
  maps = sorted(folder.rglob("*.tiff"))
  assert [p.stem for p in maps] == ["000_regular", "001_regular"]
  anomaly_map = np.asarray(Image.open(maps[0]))
  assert anomaly_map.shape == (32, 32) and anomaly_map.dtype == np.float32
  top = np.sort(anomaly_map.ravel())[-int(0.01 * 32 * 32) :].mean()
  assert float(lines[1].split(",")[-1]) == pytest.approx(top, abs=1e-5)


@pytest.mark.slow
def test_same_results_from_folder_and_mvtec(tmp_path):
  """The same images in two layouts train the same model."""
  mvtec = layout_trees.mvtec(tmp_path / "mvtec", categories=("nut",))
  lines = ["image,label,mask,category,split"]
  for path in sorted(mvtec.rglob("*.png")):
    name = path.relative_to(mvtec).as_posix()
    if "ground_truth" in name:
      continue
    split = "train" if "/train/" in name else "test"
    truth = ""
    if "dent" in name:
      truth = f"nut/ground_truth/dent/{path.stem}_mask.png"
    label = "anomaly" if truth else "normal"
    lines.append(f"{name},{label},{truth},nut,{split}")
  first = protocols.train_and_evaluate(settings("mvtec", mvtec), tmp_path / "a")
  (mvtec / "split.csv").write_text("\n".join(lines) + "\n")
  second = protocols.train_and_evaluate(
    settings("folder", mvtec), tmp_path / "b"
  )
  assert first.mean == second.mean
