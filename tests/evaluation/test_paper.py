"""The paper's figures appear beside runs of its settings, and no others."""

import pytest

from inp_former_jax.configs import (
  btad,
  common,
  folder,
  mpdd,
  mvtec,
  mvtec_ad2,
  mvtec_loco,
  options,
  realiad,
  super_multi_class,
  visa,
  zero_shot,
)
from inp_former_jax.evaluation import paper

LEAVES = {
  "mvtec": mvtec,
  "visa": visa,
  "realiad": realiad,
  "btad": btad,
  "mpdd": mpdd,
  "mvtec_loco": mvtec_loco,
  "mvtec_ad2": mvtec_ad2,
  "folder": folder,
}


@pytest.mark.parametrize("name", LEAVES)
def test_leaves_choose_their_layout(name):
  config = LEAVES[name].get_config()
  assert config.data.layout == name
  expected = common.get_config()
  expected.data.layout = name
  if name == "folder":  # own images are not cropped
    expected.data.resize = expected.data.crop
    expected.calibration.holdout = 0.1
  assert config.to_dict() == expected.to_dict()


@pytest.mark.parametrize(
  "config, title, metric, value",
  [
    (mvtec.get_config(), "paper, ViT-B", "image_auroc", 0.997),
    (mvtec.get_config(), "paper, ViT-B", "pixel_aupro", 0.949),
    (mvtec.get_config("small"), "paper, ViT-S", "image_auroc", 0.992),
    (mvtec.get_config("large"), "paper, ViT-L", "image_auroc", 0.998),
    (visa.get_config(), "paper, ViT-B", "pixel_ap", 0.512),
    (realiad.get_config(), "paper, ViT-B", "image_ap", 0.881),
    (mvtec.get_config("few_shot"), "paper, ViT-B", "image_auroc", 0.976),
    (mvtec.get_config("shots=1"), "paper, ViT-B", "image_auroc", 0.966),
    (zero_shot.get_config(), "paper, ViT-B", "pixel_auroc", 0.88),
    (
      super_multi_class.get_config(),
      "paper, ViT-B, realiad",
      "image_auroc",
      0.898,
    ),
  ],
)
def test_rows_of_the_papers_settings(config, title, metric, value):
  assert paper.rows(config)[title][metric] == value


@pytest.mark.parametrize(
  "config",
  [
    mvtec.get_config("size=224"),
    mvtec.get_config("single_class"),
    mvtec.get_config("no_mining"),
    mvtec.get_config("inps=4"),
    visa.get_config("few_shot"),
    visa.get_config("small"),
    btad.get_config(),
    super_multi_class.get_config("small"),
    zero_shot.get_config("small"),
  ],
)
def test_no_row_beside_other_settings(config):
  assert paper.rows(config) == {}


def test_no_row_beside_a_part_of_the_categories():
  config = mvtec.get_config()
  config.data.categories = ("cable",)
  assert paper.rows(config) == {}


def test_options():
  config = visa.get_config("few_shot,shots=2,large,size=224,inps=8,lambda=0.5")
  assert (config.data.shots, config.data.crop, config.data.resize) == (
    2,
    224,
    256,
  )
  assert config.model.encoder == "dinov2reg_vit_large_14"
  assert config.model.num_prototypes == 8
  assert config.loss.coherence_weight == 0.5
  assert visa.get_config("size=392").data.resize == 448
  config = visa.get_config("single_class,no_inps,no_coherence,no_mining")
  assert config.protocol == "single_class" and not config.model.use_inps
  assert config.loss.coherence_weight == config.loss.gamma == 0


@pytest.mark.parametrize(
  "text, message",
  [
    ("few_shots", "Did you mean 'few_shot'"),
    ("shots", "no option 'shots'"),
    ("shots=four", "needs a whole number"),
    ("small=1", "no option 'small=1'"),
  ],
)
def test_unknown_options(text, message):
  with pytest.raises(ValueError, match=message):
    options.apply(common.get_config(), text)
