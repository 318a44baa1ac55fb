"""Tiny data sets in every layout, drawn on the fly: pixels, not only names."""

import csv
import json
import pathlib

import numpy as np
from PIL import Image

SIDE = 64


def draw(path: pathlib.Path, number: int, defective: bool = False) -> None:
  """A grey gradient with noise; defective ones have a bright square."""
  rng = np.random.default_rng(number)
  image = np.linspace(60, 120, SIDE)[:, None, None] + np.zeros((SIDE, SIDE, 3))
  image = image + rng.normal(0, 4, image.shape)
  if defective:
    image[20:40, 24:44] = 230
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)


def mask(path: pathlib.Path, value: int = 255, columns=(24, 44)) -> None:
  """The square, or part of it."""
  pixels = np.zeros((SIDE, SIDE), np.uint8)
  pixels[20:40, columns[0] : columns[1]] = value
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path)


def mvtec(root: pathlib.Path, categories=("bolt", "nut"), suffix="_mask"):
  for c, category in enumerate(categories):
    base = root / category
    for i in range(4):
      draw(base / "train/good" / f"{i:03d}.png", 10 * c + i)
    for i in range(2):
      draw(base / "test/good" / f"{i:03d}.png", 100 + 10 * c + i)
      draw(base / "test/dent" / f"{i:03d}.png", 200 + 10 * c + i, True)
      mask(base / "ground_truth/dent" / f"{i:03d}{suffix}.png")
  return root


def mpdd(root: pathlib.Path):
  return mvtec(root, suffix="")


def btad(root: pathlib.Path):
  for c, extension in (("01", "bmp"), ("02", "png")):
    for i in range(4):
      draw(root / c / "train/ok" / f"{i:04d}.{extension}", i)
    for i in range(2):
      draw(root / c / "test/ok" / f"{i:04d}.{extension}", 100 + i)
      draw(root / c / "test/ko" / f"{i:04d}.{extension}", 200 + i, True)
      mask(root / c / "ground_truth/ko" / f"{i:04d}.png")
  return root


def mvtec_loco(root: pathlib.Path):
  base = root / "box"
  for i in range(4):
    draw(base / "train/good" / f"{i:03d}.png", i)
    draw(base / "validation/good" / f"{i:03d}.png", 50 + i)
  for i in range(2):
    draw(base / "test/good" / f"{i:03d}.png", 100 + i)
    for kind in ("logical_anomalies", "structural_anomalies"):
      draw(base / "test" / kind / f"{i:03d}.png", 200 + i, True)
      folder = base / "ground_truth" / kind / f"{i:03d}"
      mask(folder / "000.png", 12, (24, 30))
      mask(folder / "001.png", 200, (28, 44))
  return root


def mvtec_ad2(root: pathlib.Path):
  base = root / "can"
  for i in range(4):
    draw(base / "train/good" / f"{i:03d}_regular.png", i)
  draw(base / "validation/good" / "000_regular.png", 50)
  for i in range(2):
    draw(base / "test_public/good" / f"{i:03d}_regular.png", 100 + i)
    draw(base / "test_public/bad" / f"{i:03d}_regular.png", 200 + i, True)
    folder = base / "test_public/ground_truth/bad"
    mask(folder / f"{i:03d}_regular_mask.png")
    draw(base / "test_private" / f"{i:03d}_regular.png", 300 + i, i == 1)
  return root


def visa(root: pathlib.Path):
  rows = []
  for c, category in enumerate(("candle", "pcb1")):
    data = root / category / "Data"
    for i in range(6):
      split = "train" if i < 4 else "test"
      path = data / "Images/Normal" / f"{i:04d}.JPG"
      draw(path, 10 * c + i)
      rows.append([category, split, "normal", path, ""])
    for i in range(2):
      path = data / "Images/Anomaly" / f"{i:03d}.JPG"
      truth = data / "Masks/Anomaly" / f"{i:03d}.png"
      draw(path, 200 + i, True)
      mask(truth, 2)
      rows.append([category, "test", "anomaly", path, truth])
  table = root / "split_csv" / "1cls.csv"
  table.parent.mkdir(parents=True)
  with open(table, "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["object", "split", "label", "image", "mask"])
    for *head, image, truth in rows:
      names = [
        p.relative_to(root).as_posix() if p else "" for p in (image, truth)
      ]
      writer.writerow([*head, *names])
  return root


def visa_prepared(root: pathlib.Path):
  return mvtec_kinds(root / "1cls", "bad") and root


def mvtec_kinds(root: pathlib.Path, kind: str):
  for i in range(4):
    draw(root / "candle/train/good" / f"{i:03d}.JPG", i)
  for i in range(2):
    draw(root / "candle/test/good" / f"{i:03d}.JPG", 100 + i)
    draw(root / f"candle/test/{kind}" / f"{i:03d}.JPG", 200 + i, True)
    mask(root / f"candle/ground_truth/{kind}" / f"{i:03d}.png")
  return root


def realiad(root: pathlib.Path):
  def entry(label, sample, view, number):
    name = f"toy_{sample}_{label}_C{view}_2023.jpg"
    path = f"{'OK' if label == 'OK' else 'NG/' + label}/S{sample}/{name}"
    image = root / "realiad_256" / "toy" / path
    draw(image, number, label != "OK")
    truth = None
    if label != "OK":
      truth = path.replace(".jpg", ".png")
      mask(root / "realiad_256" / "toy" / truth)
    return {
      "category": "toy",
      "anomaly_class": label,
      "image_path": path,
      "mask_path": truth,
    }

  train = [entry("OK", f"000{s}", v, 5 * s + v) for s in (1, 2) for v in (1, 2)]
  test = [
    entry(label, f"001{s}", v, 100 + 5 * s + v)
    for s, label in ((1, "OK"), (2, "AK"), (3, "OK"))
    for v in (1, 2)
  ]
  listing = root / "realiad_jsons" / "realiad_jsons" / "toy.json"
  listing.parent.mkdir(parents=True)
  meta = {"normal_class": "OK", "prefix": "toy/"}
  content = {"meta": meta, "train": train, "test": test}
  listing.write_text(json.dumps(content))
  return root


def folder(root: pathlib.Path):
  for i in range(8):
    draw(root / "normal" / f"{i}.png", i)
  for i in range(2):
    draw(root / "test_normal" / f"n{i}.png", 100 + i)
    draw(root / "defect/dent" / f"d{i}.png", 200 + i, True)
    mask(root / "mask/dent" / f"d{i}.png")
  return root


def folder_split(root: pathlib.Path):
  lines = ["image,label,mask,category,split"]
  for i in range(4):
    draw(root / f"images/{i}.png", i)
    lines.append(f"images/{i}.png,normal,,part,train")
  for i in range(2):
    draw(root / f"images/t{i}.png", 100 + i)
    draw(root / f"images/d{i}.png", 200 + i, True)
    mask(root / f"masks/d{i}.png")
    lines.append(f"images/t{i}.png,normal,,part,test")
    lines.append(f"images/d{i}.png,anomaly,masks/d{i}.png,part,test")
  (root / "split.csv").write_text("\n".join(lines) + "\n")
  return root


TREES = {
  "mvtec": ("mvtec", mvtec),
  "mpdd": ("mpdd", mpdd),
  "btad": ("btad", btad),
  "mvtec_loco": ("mvtec_loco", mvtec_loco),
  "mvtec_ad2": ("mvtec_ad2", mvtec_ad2),
  "visa": ("visa", visa),
  "visa_prepared": ("visa", visa_prepared),
  "realiad": ("realiad", realiad),
  "folder": ("folder", folder),
  "folder_split": ("folder", folder_split),
}
