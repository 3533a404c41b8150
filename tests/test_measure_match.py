"""The commands measure and match."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from big_crop import match, pack
from big_crop.measure import __main__ as measure_command
from big_crop.measure import figures, shapes
from big_crop.measure import measurement as measure
from pp_ops import laws, registry
from pp_ops.laws import arguments, exact


@pytest.mark.parametrize(
  ("area_min", "alpha"),
  [
    (2.5, 1.149),
    (5, 1.287),
    (10, 1.551),
    (15, 1.818),
    (20, 2.099),
    (25, 2.403),
  ],
)
def test_match_gives_the_papers_alphas(area_min, alpha):
  """Section 5: ideal Beta crops as strong as the fixed crop."""
  spec, level, reached = match.solve(
    f"inception_crop_fixed(area_min={area_min})",
    "beta_crop(area_min=0, beta=1)",
    "alpha",
  )
  assert round(registry.law_of(spec).alpha, 3) == alpha
  np.testing.assert_allclose([level, reached], 0.95 * area_min / 100 + 0.05)


def test_match_gives_section_6_2():
  """The 5.3rd percentile is 1/19, the fixed crop's share from 5 to 10%."""
  spec, level, _ = match.solve(
    "beta_crop(area_min=5, alpha=2)",
    "inception_crop_fixed(224)",
    "area_min",
    100 / 19,
  )
  assert spec.startswith("inception_crop_fixed(224, area_min=22.7")
  assert round(level, 3) == 0.268


def test_match_on_images_equates_the_exact_percentiles():
  images = {(375, 500): 2, (500, 333): 1}
  spec, level, reached = match.solve(
    "inception_crop(area_min=8)",
    "inception_crop_fixed",
    "area_min",
    5,
    images,
  )
  assert abs(level - reached) < 2e-4
  assert 5 < registry.law_of(spec).area_min * 100 < 8


def test_match_on_many_images_is_that_of_whole_distributions():
  """Match computes no whole distribution; it starts from a few shapes'."""
  rng = np.random.default_rng(0)
  images = {
    (int(h), int(w)): int(n)
    for h, w, n in rng.integers([16, 16, 1], [60, 60, 4], (5 * match._FEW, 3))
  }
  total = sum(images.values())

  def whole(spec):
    law = registry.law_of(spec)
    return exact.Mixture(
      [(n / total, exact.size_distribution(law, *s)) for s, n in images.items()]
    )

  target = "inception_crop(area_min=8)"
  spec, level, reached = match.solve(
    target, "beta_crop(area_min=1, alpha=9)", "alpha", 10, images
  )
  assert level == pytest.approx(whole(target).percentile(10), rel=1e-12)
  assert reached == pytest.approx(whole(spec).percentile(10), rel=1e-12)
  masses = [whole(s).cdf(level) for s in (target, spec)]
  assert masses[1] == pytest.approx(masses[0], rel=1e-5)


def test_the_papers_port_is_matched_like_tensorflows_law():
  asked = ("inception_crop_fixed", "area_min", 5)
  for images in (None, {(96, 128): 1}):
    levels = [
      match.solve(f"{crop}(area_min=8)", *asked, images)[1]
      for crop in ("inception_crop", "inception_crop_port")
    ]
    # The same ideal law; whole pixels differ in the largest ratio.
    assert levels[1] == pytest.approx(levels[0], rel=1e-2 if images else 1e-12)


def test_match_of_a_crop_with_itself_gives_its_own_parameter():
  spec, _, _ = match.solve("beta_crop(96, 3.0)", "beta_crop(96, 1.5)", "alpha")
  assert registry.law_of(spec).alpha == pytest.approx(3, rel=1e-5)


def test_match_mistakes():
  for args, message in [
    (("resize(3)", "beta_crop", "alpha"), "declares no crop law"),
    (("beta_crop", "inception_crop_fixed", "alpha"), "did you mean"),
    (("inception_crop", "beta_crop(area_min=30)", "alpha"), "no alpha of"),
    (("inception_crop", "beta_crop", "alpha", 0), "percentile"),
    (
      (
        "inception_crop_fixed(area_min=20, area_max=20)",
        *("inception_crop_fixed", "area_min"),
      ),
      "all have one scale",
    ),
    (
      (
        "beta_crop(alpha=0.5, area_min=0.1, area_max=1.5)",
        *("inception_crop_fixed(area_min=0.1)", "area_max"),
      ),
      "no area_max of",
    ),
  ]:
    with pytest.raises(ValueError, match=message):
      match.solve(*args)


def test_match_prints_a_spec_to_paste(capsys):
  match.main(
    [
      *("--target", "inception_crop(area_min=5)"),
      *("--family", "inception_crop_fixed", "--solve", "area_min"),
      *("--image_shape", "375x500"),
    ]
  )
  spec = capsys.readouterr().out.split("  ")[0]
  registry.law_of(spec)


def test_measure_writes_everything(tmp_path, capsys):
  Image.new("RGB", (40, 30)).save(picture := tmp_path / "picture.png")
  measure_command.main(
    [
      *("--crop", "inception_crop_port", "beta_crop(alpha=2)"),
      *("--image_shape", "32x64", "64x32", "--samples", "2e5"),
      *("--picture", str(picture)),
      *("--out", str(tmp_path)),
    ]
  )
  names = {p.name for p in tmp_path.iterdir()}
  assert {"table.md", "areas_32x64.png", "windows.png"} <= names
  assert "sizes_inception_crop_port.png" in names
  assert (tmp_path / "table.md").read_text() in capsys.readouterr().out
  summary = json.loads((tmp_path / "summary.json").read_text())
  assert len(summary["laws"]) == 4
  for row in summary["laws"]:
    exact, sampled = row["exact"], row["sampled"]
    # Five standard errors of a mean in [0, 1] from 2e5 samples.
    assert abs(exact["mean"] - sampled["mean"]) < 5 * 0.25 / 2e5**0.5
  turned = [r for r in summary["distances"] if r["b"].startswith("transposed")]
  assert [r["tv"] > 0.1 for r in turned] == [True, False]


def test_windows_on_a_picture(tmp_path, monkeypatch):
  """Outlines lie in the picture, crops are as large as is said, and grow."""
  picture = np.zeros((30, 40, 3), np.uint8)
  picture[..., 0], picture[..., 1] = np.mgrid[:30, :40]
  Image.fromarray(picture).save(tmp_path / "picture.png")
  drawn = figures.read_picture(str(tmp_path / "picture.png"))
  kept = []
  monkeypatch.setattr(figures.plots, "save", lambda f, *_, **__: kept.append(f))
  specs = ["inception_crop_fixed", "beta_crop(alpha=5)"]
  found = measure.measure(specs, {"30x40": {(30, 40): 1}}, 100)
  figures.save_windows(tmp_path / "windows.png", found, drawn, 0)
  axes = [ax for ax in kept[0].axes if ax.images]
  crops = [ax for ax in axes if not ax.patches]
  for ax in axes:
    for box in ax.patches:
      (x, y), h, w = box.get_xy(), box.get_height(), box.get_width()
      assert min(x, y) >= -0.5 and x + w <= 39.5 and y + h <= 29.5
  assert [ax.get_title("left") for ax in axes if ax.patches] == specs
  medians = []
  for law in (crops[:10], crops[10:]):
    shown = [np.asarray(ax.images[0].get_array()) for ax in law]
    areas = [len(a) * len(a[0]) / 1200 for a in shown]
    assert areas == sorted(areas)
    for ax, area, image in zip(law, areas, shown, strict=True):
      assert ax.get_title().startswith(f"{area:.0%} ")
      y, x, _ = image[0, 0]
      np.testing.assert_array_equal(
        image, picture[y : y + len(image), x : x + len(image[0])]
      )
    medians.append(areas[5])
  assert medians[0] + 0.2 < medians[1]


def test_measure_averages_over_images_and_takes_a_users_law(
  tmp_path, monkeypatch
):
  for i, size in enumerate([(30, 20), (30, 20), (20, 30)]):
    Image.new("RGB", size).save(tmp_path / f"{i}.png")
  assert shapes.of_folder(str(tmp_path)) == {(20, 30): 2, (30, 20): 1}
  module = tmp_path / "their_ops.py"
  module.write_text(
    "import dataclasses\n"
    "from pp_ops import laws, registry\n"
    "class HalfLaw(laws.Law):\n"
    "  def propose(self, u, height, width, xp):\n"
    "    h = xp.ones_like(u[..., 0]) * height / 2\n"
    "    return h, h, h > 0\n"
    "  def fallback(self, height, width, xp):\n"
    "    return height, width, height, width\n"
    "@registry.register('half_crop', law=HalfLaw)\n"
    "def get_half_crop():\n"
    "  return lambda image: image\n"
  )
  monkeypatch.syspath_prepend(str(tmp_path))
  registry.import_modules(["their_ops"])
  try:
    found = measure.measure(
      ["half_crop", "inception_crop_fixed"],
      {"folder": shapes.of_folder(str(tmp_path))},
      30_000,
    )
  finally:
    registry._OPS.pop("half_crop")
    sys.modules.pop("their_ops")
  theirs, fixed = (m.row() for m in found)
  assert theirs["exact"]["mean"] is None
  # Squares of half the height cover 100 and 225 of 600 pixels.
  expected = (2 * 100 + 225) / 3 / 600
  assert theirs["sampled"]["mean"] == pytest.approx(expected)
  assert fixed["exact"]["mean"] == pytest.approx(
    fixed["sampled"]["mean"], abs=0.01
  )


def test_shapes_of_packed_data(tmp_path, capsys):
  """The stored, resized shapes, upright, and those of the split alone."""
  sizes = {"train": [(60, 40), (60, 40), (40, 60), (8, 6)], "test": [(50, 50)]}
  for split, images in sizes.items():
    (tmp_path / "images" / split / "a").mkdir(parents=True)
    for i, size in enumerate(images):
      Image.new("RGB", size).save(tmp_path / f"images/{split}/a/{i}.png")
  out = str(tmp_path / "packed")
  pack.pack(str(tmp_path / "images"), out, 20)
  expected = {(20, 30): 2, (30, 20): 1, (6, 8): 1}
  assert shapes.of_dataset(out, "train", None, 10) == expected
  assert sum(shapes.of_dataset(out, "train", None, 3).values()) == 3
  assert shapes.of_dataset("folder", "test", out, 10) == {(20, 20): 1}
  measure_command.main(
    [
      *("--crop", "inception_crop_fixed", "--dataset", out, "--split", "test"),
      *("--samples", "1000", "--out", str(tmp_path / "found")),
    ]
  )
  assert out in capsys.readouterr().out


def test_shape_mistakes(tmp_path):
  for text in ("32", "0x3", "3x", "axb"):
    with pytest.raises(ValueError, match="need HxW"):
      shapes.parse(text)
  with pytest.raises(ValueError, match="no images in"):
    shapes.of_folder(str(tmp_path))


def test_op_arguments_are_percent_and_own_ones_first():
  found = arguments.defaults(laws.BetaLaw)
  assert list(found)[:4] == ["alpha", "beta", "area_min", "area_max"]
  assert found["area_min"] == 5 and found["area_max"] == 100


def test_every_shape_has_a_sample():
  images = {"folder": {(20, 30): 1, (30, 20): 1, (20, 20): 7}}
  (found,) = measure.measure(["inception_crop_fixed"], images, 1)
  assert sum(weight for weight, _ in found.sampled.parts) == pytest.approx(1)
