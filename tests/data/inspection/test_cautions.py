"""Rotated, squashed and cropped images: found, and what to do is said."""

import collections

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from inp_former_jax.configs import btad, common, folder
from inp_former_jax.data import __main__ as command
from inp_former_jax.data import transforms
from inp_former_jax.data.inspection import cautions, findings
from inp_former_jax.data.records import Dataset, Record
from inp_former_jax.data.transforms import Preprocessing

SIZE = (30, 20)  # width, height
# TIFF's header and the beginning of a directory of 9 entries that has none.
TORN = b"Exif\0\0MM\0*\0\0\0\x08\0\x09torn"


def save(path, size=SIZE, exif=b"", orientation=None):
  """Saves noise, with EXIF as it is given or with an orientation."""
  rng = np.random.default_rng(len(str(path)))
  if orientation is not None:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    exif = tags.tobytes()
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
  Image.fromarray(pixels).save(path, exif=exif)
  return path


def inspect(paths, quick):
  records = tuple(Record(path, "nut", 0, "good") for path in paths)
  return findings.inspect_dataset(
    Dataset("parts", records, ()), paths[0].parent, quick=quick, threads=2
  )


both = pytest.mark.parametrize("quick", [False, True])


@both
@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
@pytest.mark.parametrize("extension", ["jpg", "png"])
def test_exif_orientation_is_found(tmp_path, extension, orientation, quick):
  save(tmp_path / f"upright.{extension}", orientation=1)
  save(tmp_path / f"plain.{extension}")
  save(tmp_path / f"turned.{extension}", orientation=orientation)
  found = inspect(sorted(tmp_path.iterdir()), quick)
  assert found.rotated == (f"turned.{extension}",)
  assert found.sizes == {"nut": {SIZE: 3}}  # as stored
  assert found.problems == ()


@both
def test_orientation_of_a_tiff_is_applied_by_pillow(tmp_path, quick):
  """So that there is nothing to warn of."""
  path = save(tmp_path / "a.tif", orientation=6)
  found = inspect([path], quick)
  assert found.rotated == ()
  assert found.sizes == {"nut": {SIZE[::-1]: 1}}
  assert transforms.decode(path, "RGB").size == SIZE[::-1]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@both
@pytest.mark.parametrize("extension", ["jpg", "png"])
@pytest.mark.parametrize(
  "exif", [TORN, b"Exif\0\0torn", b"Exif\0\0", b"\xff" * 40]
)
def test_broken_exif_is_no_problem(tmp_path, exif, extension, quick):
  found = inspect([save(tmp_path / f"a.{extension}", exif=exif)], quick)
  assert (found.rotated, found.problems) == ((), ())
  assert found.sizes == {"nut": {SIZE: 1}}


@both
@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_meaningless_orientation_is_none(tmp_path, orientation, quick):
  path = save(tmp_path / "a.jpg", orientation=orientation)
  assert inspect([path], quick).rotated == ()


def test_quick_decodes_no_pixels(tmp_path, monkeypatch):
  paths = [save(tmp_path / f"a.{end}") for end in ("png", "jpg")]
  decoded = []
  for plugin in (Image.Image, PngImagePlugin.PngImageFile):
    monkeypatch.setattr(plugin, "load", decoded.append)
  inspect(paths, quick=True)
  assert decoded == []


def test_image_that_cannot_be_read_is_not_called_rotated(tmp_path):
  path = save(tmp_path / "a.jpg", size=(200, 100), orientation=6)
  path.write_bytes(path.read_bytes()[:-2000])
  found = inspect([path], quick=False)
  assert found.rotated == () and len(found.problems) == 1


def caution(preprocessing, rotated=(), **sizes):
  """The paragraphs for images of sizes like w30_20=4."""
  counts = collections.Counter(
    {
      tuple(map(int, name[1:].split("_"))): number
      for name, number in sizes.items()
    }
  )
  inspection = findings.Inspection(
    Dataset("", (), ()), {"nut": counts}, (), {}, False, rotated
  )
  return cautions.find_cautions(inspection, preprocessing)


def sides(resize, crop, **widths):
  return Preprocessing.from_sides(resize, crop, **widths)


def test_rotated_images_are_counted_and_a_few_named():
  names = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
  text = caution(command.WHOLE, names, w30_20=7)[0]
  assert "4 of 7 images" in text
  assert "e.g. a.jpg, b.jpg, c.jpg." in text
  assert "mogrify -auto-orient" in text


@pytest.mark.parametrize(
  ("size", "preprocessing", "flags"),
  [
    ("w300_100", sides(392, 392), "224 672 224 672"),
    ("w300_100", sides(448, 392), "256 768 224 672"),
    ("w100_300", sides(448, 392), "768 256 672 224"),
    ("w1000_625", sides(392, 392), "308 490 308 490"),
    ("w9000_10", sides(392, 392), "14 11760 14 11760"),
  ],
)
def test_squashed_images_get_sizes_of_their_shape(size, preprocessing, flags):
  (text, _) = caution(preprocessing, **{size: 5})
  resize, resize_width, crop, crop_width = flags.split()
  assert (
    f"train with `resize`={resize} `resize_width`={resize_width} "
    f"`crop`={crop} `crop_width`={crop_width} "
  ) in text
  assert "5 of 5 images" in text
  width, height = size[1:].split("_")
  assert f"5 of {width}x{height} (" in text
  better = sides(
    int(resize),
    int(crop),
    resize_width=int(resize_width),
    crop_width=int(crop_width),
  )
  better.require_patches(14)
  if int(width) < 9000:
    (only,) = caution(better, **{size: 5})
    assert "squashed" not in only


@pytest.mark.parametrize("size", ["w30_20", "w20_30", "w100_100"])
def test_images_up_to_3_to_2_are_not_called_squashed(size):
  assert len(caution(command.WHOLE, **{size: 5})) == 1


def test_squashed_minority_is_trained_on_separately():
  text = caution(command.WHOLE, w100_100=10, w300_100=2, w100_200=1)[0]
  assert "3 of 13 images" in text
  assert "2 of 300x100 (3:1), 1 of 100x200 (1:2)" in text
  assert "train on such images separately, with `resize`=224" in text


def test_many_squashed_sizes_are_summed_up():
  sizes = {f"w{200 + i}_100": 9 - i for i in range(6)}
  text = caution(command.WHOLE, **sizes)[0]
  assert "7 of 202x100 (2.02:1), others of 3 more sizes." in text


def test_crop_of_the_paper():
  (text,) = caution(cautions.PAPER, w100_100=1)
  assert text == (
    "Resize 448, centre crop 392 (as in the paper): the outer 23 % of every "
    "image is never inspected, 1/16 of it on each side. To inspect everything, "
    "train with a resize equal to the crop: `resize`=392 `crop`=392."
  )


@pytest.mark.parametrize(
  ("preprocessing", "text"),
  [
    (sides(392, 392), "Resize 392, centre crop 392: the whole of every image"),
    (sides(450, 392), "the outer 24 % of every image is never inspected, 1/15"),
    (sides(1000, 999), "the outer 1 % or less of every image"),
    (
      sides(448, 392, resize_width=500, crop_width=490),
      "1/16 of its height at the top and at the bottom and 1/100 of its width "
      "on the left and on the right. To inspect everything, train with a "
      "resize equal to the crop: `resize`=392 `crop`=392 `resize_width`=490 "
      "`crop_width`=490.",
    ),
    (
      sides(224, 224, resize_width=500, crop_width=490),
      "Resize 500x224, centre crop 490x224: the outer 2 % of every image is "
      "never inspected, 1/100 of its width on the left and on the right. ",
    ),
  ],
)
def test_other_crops(preprocessing, text):
  assert text in caution(preprocessing, w100_100=1)[-1]


def test_defaults_of_the_command_are_those_of_the_configs():
  for config, sizes in (
    (folder.get_config(), command.WHOLE),
    (btad.get_config(), cautions.PAPER),
    (common.get_config(), cautions.PAPER),
  ):
    data = config.data
    assert sizes == sides(
      data.resize,
      data.crop,
      resize_width=data.resize_width,
      crop_width=data.crop_width,
    )


@pytest.mark.parametrize(
  ("flags", "text"),
  [
    ([], "Resize 392, centre crop 392: the whole of"),
    (["--resize=448"], "Resize 448, centre crop 392 (as in the paper): the"),
    (["--resize=256", "--crop=224"], "--config.data.resize=224"),
    (
      ["--resize=224", "--resize_width=672", "--crop=224", "--crop_width=672"],
      "Warning: 1 of 3 images squashed by resizing to 672x224 (3:1)",
    ),
  ],
)
@both
def test_command(tmp_path, capsys, monkeypatch, flags, text, quick):
  monkeypatch.setenv("COLUMNS", "1000")
  save(tmp_path / "normal/a.jpg", size=(300, 100), orientation=6)
  save(tmp_path / "normal/b.png", size=(300, 100))
  save(tmp_path / "normal/c.jpg", size=(100, 100), exif=TORN)
  arguments = ["--layout=folder", f"--root={tmp_path}", *flags]
  assert command.main([*arguments, *["--quick"] * quick]) == 0
  out, err = capsys.readouterr()
  assert text in out and err == ""
  assert "1 of 3 images with an EXIF orientation, e.g. normal/a.jpg." in out
  if not flags:
    assert (
      "with --config.data.resize=224 --config.data.resize_width=672 "
      "--config.data.crop=224 --config.data.crop_width=672 "
    ) in out
  assert "0 problems found" in out


def test_command_refuses_a_crop_larger_than_the_resize(tmp_path, capsys):
  arguments = ["--layout=folder", f"--root={tmp_path}", "--resize=280"]
  with pytest.raises(SystemExit) as caught:
    command.main(arguments)
  assert caught.value.code == 2
  assert "392 pixels is larger than the 280" in capsys.readouterr().err


@pytest.mark.parametrize("other", ["w100_300", "w100_100"])
def test_advice_that_would_squash_others_says_separately(other):
  text = caution(command.WHOLE, w300_100=5, **{other: 4})[0]
  assert "train on such images separately" in text


def test_files_of_other_endings_are_named(tmp_path, capsys):
  save(tmp_path / "normal/a.png")
  for name in ("phone.HEIC", "web.webp", "notes.txt"):
    (tmp_path / "normal" / name).write_bytes(b"x")
  assert command.main(["--layout=folder", f"--root={tmp_path}"]) == 0
  output = " ".join(capsys.readouterr().out.split())
  assert "2 image files are skipped because of their ending" in output
  assert "normal/phone.HEIC, normal/web.webp." in output
