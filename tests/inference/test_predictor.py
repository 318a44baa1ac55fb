"""One way to an answer, whatever the images come as."""

import itertools
import os
import pathlib
import weakref

import jax
import numpy as np
import pytest
from PIL import Image

from inp_former_jax.data.errors import DataError
from inp_former_jax.data.transforms import Preprocessing
from inp_former_jax.inference import calibrating
from inp_former_jax.inference.framing.geometry import map_at_image_size
from inp_former_jax.inference.framing.tiling import Tiling
from inp_former_jax.inference.predictor import Predictor


@pytest.fixture
def files(tmp_path) -> list[pathlib.Path]:
  """Seven images: odd sizes, grey and colour."""
  random = np.random.default_rng(0)
  shapes = [(60, 80, 3), (97, 41, 3), (50, 50), (33, 200, 3), (64, 64)]
  shapes += [(120, 90, 3), (71, 70)]
  for number, shape in enumerate(shapes):
    pixels = random.integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"{number}.png")
  return sorted(tmp_path.iterdir())


def pixels_of(path) -> np.ndarray:
  with Image.open(path) as image:
    return np.asarray(image)


def assert_same(answers, others):
  for answer, other in zip(answers, others, strict=True):
    assert answer.score == pytest.approx(other.score, abs=1e-6)
    np.testing.assert_allclose(
      answer.anomaly_map, other.anomaly_map, atol=1e-5, equal_nan=True
    )


def test_all_kinds_of_input_get_the_same_answers(predictor, files, tmp_path):
  one_by_one = [predictor(path) for path in files]
  for kind in (
    tmp_path,
    str(tmp_path),
    files,
    iter(files),
    [str(path) for path in files],
    [pixels_of(path) for path in files],
    (Image.open(path) for path in files),
    [files[:3], tmp_path / files[3].name, iter(files[4:])],
  ):
    assert_same(predictor(kind), one_by_one)
  for path, answer in zip(files, one_by_one, strict=True):
    assert answer.source == path
    assert answer.anomaly_map.shape == pixels_of(path).shape[:2]
    assert answer.anomaly_map.dtype == np.float32
    assert_same([predictor(pixels_of(path))], [answer])


def test_a_batch_array_is_many_images(predictor):
  batch = np.random.default_rng(0).integers(0, 256, (5, 40, 30, 3), np.uint8)
  answers = list(predictor(batch))
  assert [answer.source for answer in answers] == [0, 1, 2, 3, 4]
  assert_same(answers, [predictor(image) for image in batch])
  assert_same(predictor(jax.numpy.asarray(batch)), answers)


def test_it_answers_as_the_evaluation_did(tiny_run, predictor):
  result = tiny_run.result
  answers = list(predictor(record.image for record in result.records))
  np.testing.assert_allclose(
    [answer.score for answer in answers], result.image_scores, atol=1e-6
  )


def test_one_compilation_for_any_number_of_images(tiny_run, files):
  # A size that no other test has, as models of one kind share what is compiled.
  predictor = Predictor.load(tiny_run.workdir, batch_size=11)
  step = predictor.model.predict_step
  before = step._cache_size()
  for count in (14, 2, 12, 11):
    assert len(list(predictor([*files, *files][:count]))) == count
  assert step._cache_size() == before + 1
  for path in files:
    predictor(path)
  assert step._cache_size() <= before + 2  # a batch of one


def test_the_border_outside_of_the_crop_is_nan(predictor, files):
  assert predictor.uninspected_share == pytest.approx(1 - 70**2 / 80**2)
  answer = predictor(files[0])
  seen = ~np.isnan(answer.anomaly_map)
  assert seen[4:-4, 5:-5].all() and not seen[:3].any() and not seen[:, :4].any()


def test_memory_does_not_grow_with_the_number_of_images(predictor):
  """No more images are alive than fit into the batches under way."""
  alive = {"now": 0, "most": 0}

  class Counted(np.ndarray):
    pass

  def forget():
    alive["now"] -= 1

  def endless():
    while True:
      image = np.zeros((8, 8, 3), np.uint8).view(Counted)
      weakref.finalize(image, forget)
      alive["now"] += 1
      alive["most"] = max(alive["most"], alive["now"])
      yield image
      del image

  answers = itertools.islice(predictor(endless()), 200)
  assert sum(1 for _ in answers) == 200
  assert alive["most"] <= 5 * predictor.batch_size


def test_unreadable_files_are_left_out_or_raised(predictor, files):
  files[2].write_text("no image")
  files[5].write_bytes(b"")
  with pytest.raises(DataError, match="2.png cannot be read"):
    list(predictor(files))
  found = []
  answers = predictor.stream(
    files, on_error=lambda source, error: found.append((source, str(error)))
  )
  assert [a.source for a in answers] == [files[i] for i in (0, 1, 3, 4, 6)]
  assert [source for source, _ in found] == [files[2], files[5]]
  assert all(str(source) in message for source, message in found)


def test_what_is_no_file_is_reported_with_the_rest_answered(predictor, files):
  folder = files[0].parent
  os.mkfifo(folder / "8.png")
  (folder / "9.png").mkdir()
  found = []
  answers = predictor.stream(folder, on_error=lambda *e: found.append(e))
  assert len(list(answers)) == 7
  assert [source.name for source, _ in found] == ["8.png", "9.png"]


def test_a_folder_without_images_is_an_error(predictor, tmp_path):
  with pytest.raises(DataError, match="holds no images"):
    predictor(tmp_path)
  with pytest.raises(DataError, match="none.png"):
    predictor(tmp_path / "none.png")


@pytest.mark.parametrize(
  "images, message",
  [
    (np.zeros((4, 4, 3), np.float32), "`images` holds an array .* float32"),
    (np.zeros((4, 4, 2), np.uint8), "`images` holds an array"),
    (7, "`images` is a int"),
  ],
)
def test_what_is_no_image_is_refused(predictor, images, message):
  with pytest.raises(ValueError, match=message):
    predictor(images)


def test_a_closed_stream_stops_its_threads(predictor, files):
  answers = predictor(itertools.cycle(files))
  next(answers)
  answers.close()  # would wait for ever if threads still decoded
  with pytest.raises(StopIteration):
    next(answers)


def test_maps_of_tiles_are_blended(tiny_run, files):
  """The sum of each tile's own map, weighted."""
  tile = (40, 50, 20)
  predictor = Predictor.load(tiny_run.workdir, tile=tile, batch_size=3)
  image = Image.open(files[1]).convert("RGB")
  size = image.height, image.width
  expected = np.zeros(size)
  tiling = Tiling(size, tile)
  whole = Preprocessing((70, 70), (70, 70))
  for part in tiling:
    left, upper, right, lower = part.box
    cut = np.asarray(image.crop(part.box).resize((70, 70), 2))
    (anomaly_map,) = predictor.model.predict(cut[None]).anomaly_map
    own = map_at_image_size(
      np.asarray(anomaly_map), (lower - upper, right - left), whole
    )
    expected[upper:lower, left:right] += own * np.outer(*tiling.weights(part))
  answer = predictor(files[1])
  np.testing.assert_allclose(answer.anomaly_map, expected, atol=1e-5)
  top = np.sort(expected.ravel())[-int(0.01 * expected.size) :]
  assert answer.score == pytest.approx(top.mean(), abs=1e-5)


def test_a_tile_as_large_as_the_image_is_the_whole_image(tiny_run, files):
  tiled = Predictor.load(tiny_run.workdir, tile=(500, 500, 100))
  answer = tiled(files[0])
  # Whole images are cropped; tiles are not.
  model = tiled.model
  cut = Image.open(files[0]).convert("RGB").resize((70, 70), 2)
  prediction = model.predict(np.asarray(cut)[None])
  mean = float(np.mean(np.asarray(prediction.anomaly_map)))
  assert np.mean(answer.anomaly_map) == pytest.approx(mean, rel=0.01)


def test_tiled_and_ignored_pixels_are_nan(tiny_run, files):
  ignore = np.zeros((60, 80), bool)
  ignore[:30] = True
  for tile in (None, (40, 40, 10)):
    predictor = Predictor.load(tiny_run.workdir, tile=tile, ignore=ignore)
    answer = predictor(files[0])
    assert np.isnan(answer.anomaly_map[:30]).all()
    left = answer.anomaly_map[30:]
    # The model's map is finer than this small image.
    assert answer.score <= np.nanmax(left) * 1.02
    with pytest.raises(DataError, match="80x60 pixels .* an image has 41x97"):
      predictor(files[1])


def test_ignored_regions_never_raise_the_score(predictor, tiny_run):
  """A spot in the ignored half changes the score only through attention."""
  image = np.full((80, 80, 3), 120, np.uint8)
  image[10:20, 10:20] = np.random.default_rng(0).integers(0, 255, (10, 10, 3))
  whole = predictor(image)
  hot = np.nan_to_num(whole.anomaly_map) > np.nanquantile(
    whole.anomaly_map, 0.9
  )
  masked = Predictor.load(tiny_run.workdir, ignore=hot)(image)
  assert masked.score < whole.score
  rest = whole.anomaly_map[~hot]
  assert masked.score == pytest.approx(np.nanmax(rest), rel=0.1)


def test_aspect_ratio_compiles_once_for_each_shape(tiny_run, files):
  predictor = Predictor.load(tiny_run.workdir, keep_aspect=True)
  answer = predictor(files[3])  # 33 x 200
  assert answer.anomaly_map.shape == (33, 200)
  framed = predictor._framing.of_picture((33, 200))
  height, width = framed.crop
  assert height % 14 == width % 14 == 0 and width > 5 * height


def test_zero_shot_scores_by_the_distance_to_the_inps(tiny_run, files):
  zero_shot = Predictor.load(tiny_run.workdir, zero_shot=True)
  assert zero_shot.options.zero_shot
  plain = Predictor.load(tiny_run.workdir)
  assert zero_shot(files[0]).score != pytest.approx(plain(files[0]).score)


def test_options_that_cannot_be_are_refused(tiny_run):
  with pytest.raises(ValueError, match="`batch_size` is 0"):
    Predictor.load(tiny_run.workdir, batch_size=0)
  with pytest.raises(ValueError, match="`tile` is 9,9,9"):
    Predictor.load(tiny_run.workdir, tile=(9, 9, 9))
  with pytest.raises(ValueError, match="`device` is 'abacus'.*JAX found cpu"):
    Predictor.load(tiny_run.workdir, "abacus")


def test_a_device_can_be_chosen(tiny_run, files):
  (device,) = jax.devices("cpu")[:1]
  by_name = Predictor.load(tiny_run.workdir, "cpu")
  by_device = Predictor.load(tiny_run.workdir, device)
  assert_same([by_name(files[0])], [by_device(files[0])])


def test_decisions_come_from_the_calibration(tiny_run, predictor, files):
  bare = Predictor(predictor.model)
  assert bare(files[0]).is_anomalous is None
  assert bare(files[0]).mask is bare(files[0]).normalised is None
  records = tiny_run.result.records
  calibration = calibrating.calibrate(
    predictor, [r for r in records if r.label == 0], image_rate=0.3
  )
  decided = Predictor(predictor.model, calibration=calibration, batch_size=4)
  for record in records:
    answer = decided(record.image, category=record.category)
    thresholds = calibration.thresholds_of(record.category)
    assert answer.category == record.category
    assert answer.thresholds == thresholds
    assert answer.is_anomalous == (answer.score > thresholds.image)
    assert answer.is_anomalous == (answer.normalised > 0.5)
    np.testing.assert_array_equal(
      answer.mask, np.nan_to_num(answer.anomaly_map) > thresholds.pixel
    )
  with pytest.raises(ValueError, match="`category` is 'bolt'.*board, cloth"):
    decided(files[0], category="bolt")


def test_a_folder_named_like_a_category_decides_its_thresholds(
  tiny_run, predictor
):
  records = tiny_run.result.records
  answers = predictor([record.image for record in records])
  for answer, record in zip(answers, records, strict=True):
    assert answer.category == record.category
  assert predictor(np.zeros((9, 9, 3), np.uint8)).category == ""


def test_nothing_left_to_inspect_is_refused(tiny_run, files):
  ignore = np.zeros((60, 80), bool)
  ignore[2:-2, 2:-2] = True  # only the border is left, outside of the crop
  predictor = Predictor.load(tiny_run.workdir, ignore=ignore)
  with pytest.raises(DataError, match="cover all that the model inspects"):
    predictor(files[0])


def test_a_damaged_image_that_was_opened_is_reported(predictor, files):
  content = files[0].read_bytes()
  files[0].write_bytes(content[: len(content) // 2])
  with Image.open(files[0]) as image, pytest.raises(DataError, match="0.png"):
    predictor(image)


def test_it_is_public():
  import inp_former_jax as inp

  assert inp.Predictor is Predictor
