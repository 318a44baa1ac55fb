"""report.html as a browser shows it: pictures, sorting, light and dark.

Skipped where there is no browser: it needs `pip install -e ".[browser]"` and
Chromium, which Debian has as a package of this name.
"""

import os
import shutil

import pytest

from inp_former_jax.evaluation import report
from tests.evaluation.fake_evaluation import CALIBRATION, fake_evaluation

NAMES = (
  "bolt",
  "<b>bold</b>",
  "a_very_long_name_of_a_category",
  "zip",
) + tuple(f"part_{i}" for i in range(3))


@pytest.fixture(scope="module")
def browser():
  playwright = pytest.importorskip(
    "playwright.sync_api", reason='needs pip install -e ".[browser]"'
  )
  path = os.environ.get("CHROMIUM") or shutil.which("chromium")
  if path is None:
    pytest.skip("needs Chromium: apt install chromium, or its path in CHROMIUM")
  with playwright.sync_playwright() as running:
    # Without its sandbox, which does not start for root or in a container; the
    # page is our own.
    launched = running.chromium.launch(
      executable_path=path, args=["--no-sandbox"]
    )
    yield launched
    launched.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
  from tests.conftest import tiny_config

  folder = tmp_path_factory.mktemp("report")
  result = fake_evaluation(folder / "data", NAMES, calibration=CALIBRATION)
  line = '{"step": %d, "loss": %f, "learning_rate": 0.0005}\n'
  log = "".join(line % (step, 1 / step) for step in range(1, 9))
  (folder / "log.jsonl").write_text(log)
  report.write_report(result, tiny_config(folder), folder)
  return (folder / "report.html").as_uri()


@pytest.fixture
def opened(browser, address):
  """Opens the page; afterwards there must be no message in the console."""
  pages, messages = [], []

  def opened(width=1280, scheme="light", anchor=""):
    page = browser.new_page(
      viewport={"width": width, "height": 800}, color_scheme=scheme
    )
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("dialog", lambda dialog: messages.append(dialog.message))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address + anchor)
    pages.append(page)
    return page

  requests: list[str] = []
  yield opened
  for page in pages:
    page.close()
  assert not messages
  assert {url.split(":")[0] for url in requests} <= {"file", "data"}


def test_all_pictures_have_loaded(opened):
  page = opened()
  widths = page.eval_on_selector_all(
    "img", "images => images.map(i => [i.naturalWidth, i.complete])"
  )
  assert len(widths) == len(NAMES) * 6 + 1
  assert all(width > 0 and complete for width, complete in widths)


def column(page, index: int) -> list[str]:
  return page.eval_on_selector_all(
    f"table.sortable tbody tr td:nth-child({index + 1})",
    "cells => cells.map(cell => cell.textContent)",
  )


@pytest.mark.parametrize("index, kind", [(0, str), (3, float), (9, float)])
def test_clicking_a_heading_sorts_both_ways(opened, index, kind):
  page = opened()
  before = column(page, index)
  assert [name.removesuffix(" *") for name in column(page, 0)] == list(NAMES)
  button = page.locator("table.sortable thead button").nth(index)
  heading = page.locator("table.sortable thead th").nth(index)
  assert heading.get_attribute("aria-sort") == "none"
  button.click()
  assert heading.get_attribute("aria-sort") == "ascending"
  up = column(page, index)
  assert sorted(up) == sorted(before)
  if kind is float:
    assert [float(v) for v in up] == sorted(float(v) for v in before)
  button.focus()
  page.keyboard.press("Enter")
  assert heading.get_attribute("aria-sort") == "descending"
  down = column(page, index)
  if kind is float:
    assert [float(v) for v in down] == sorted(map(float, before), reverse=True)
  else:
    assert down == up[::-1] and up[0] != up[-1]
  page.locator("table.sortable thead button").nth(1).click()
  assert heading.get_attribute("aria-sort") == "none"
  assert page.locator("table.sortable tfoot").inner_text().startswith("mean")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_does_not_scroll_sideways(opened, width, scheme):
  page = opened(width, scheme)
  page.eval_on_selector_all("details", "all => all.forEach(d => d.open = true)")
  found = page.evaluate("document.documentElement.scrollWidth")
  assert found <= width


def luminance(colour: str) -> float:
  """Relative luminance of "rgb(r, g, b)", as WCAG defines it."""
  values = [int(v) / 255 for v in colour[4:-1].split(",")]
  linear = [
    v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in values
  ]
  return sum(
    w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
  )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_lines_stand_out_in_light_and_dark(opened, scheme):
  page = opened(scheme=scheme)

  def style(selector: str, name: str) -> str:
    read = "(element, name) => getComputedStyle(element)[name]"
    return page.locator(selector).first.evaluate(read, name)

  back = luminance(style("body", "backgroundColor"))
  assert back > 0.9 if scheme == "light" else back < 0.05
  panel = luminance(style(".chart", "backgroundColor"))
  for selector, name, around, least in (
    ("body", "color", back, 7),
    (".quiet", "color", back, 4.5),
    ("td a", "color", back, 4.5),
    ("svg .label", "fill", panel, 7),
    ("svg .tick", "fill", panel, 4.5),
    (".line.a", "stroke", panel, 3),
    (".line.b", "stroke", panel, 3),
    (".wrong", "color", back, 4.5),
  ):
    own = luminance(style(selector, name))
    contrast = (max(own, around) + 0.05) / (min(own, around) + 0.05)
    assert contrast >= least, f"{selector} {contrast:.1f}"


def test_a_link_opens_its_category(opened):
  page = opened()
  closed = page.locator("#category-2")
  assert closed.get_attribute("open") is None
  page.locator("td a").nth(1).click()
  assert closed.get_attribute("open") is not None
  assert closed.locator("summary b").inner_text() == NAMES[1]
  assert opened(anchor="#category-3").locator("#category-3[open]").count() == 1
