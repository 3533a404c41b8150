"""The saliency command's figures and tables, of made-up runs."""

import numpy as np
import pytest
from scipy import stats

from big_crop.display import plots
from big_crop.saliency import figures, measurement
from big_crop.saliency import maps as sm


def test_the_crop_that_a_run_was_trained_with():
  for pp, crop in [
    (
      "decode_jpeg_and_inception_crop(16, area_min=8)|flip_lr",
      "inception_crop",
    ),
    ("decode|beta_crop(8)|flip_lr|inception_crop(4)", "beta_crop"),
    ("decode|resize(8)", ""),
  ]:
    assert measurement.crop_of(pp) == crop


def run_of(i, crop, epochs, pictures=(), kinds=("gradient", "gradcam"), **kw):
  rng = np.random.default_rng(0)
  label, prediction = kw.pop("predicted", (np.zeros(300), np.zeros(300)))
  return measurement.Measurement(
    name=f"run{i}",
    workdir="",
    epochs=epochs,
    crop=crop,
    shapes={k: {"gradient": (32, 32), "gradcam": (4, 4)}[k] for k in kinds},
    rows={
      **{f"{k}_entropy": rng.normal(2 - i / 9, 0.1, 300) for k in kinds},
      **{f"{k}_empty": np.zeros(300, bool) for k in kinds},
      "label": np.asarray(label),
      "prediction": np.asarray(prediction),
      "confidence": np.full(300, 0.75),
    },
    pictures=list(pictures),
    **kw,
  )


@pytest.fixture
def drawn(tmp_path, monkeypatch):
  """(runs) -> {name of the file: figure}."""

  def draw(found):
    kept = {}
    keep = lambda figure, path: kept.update({path.name: figure})
    monkeypatch.setattr(plots, "save", keep)
    figures.save_all(tmp_path, found)
    return kept

  return draw


@pytest.mark.parametrize(
  ("crops", "titles"),
  [
    # Figures 21, 23 and 25: TensorFlow's crop left, the fixed one right.
    (
      ["inception_crop", "inception_crop_fixed"] * 2,
      [f"{k}: {c}" for k in ("gradient", "Grad-CAM")
       for c in ("inception_crop", "inception_crop_fixed")],
    ),
    (["beta_crop"] * 4, ["gradient", "Grad-CAM"]),
  ],
)  # fmt: skip
def test_a_panel_for_each_crop(crops, titles, drawn):
  epochs = (30, 30, 300, 300)
  figure = drawn(list(map(run_of, range(4), crops, epochs)))["entropies.png"]
  assert [ax.get_title() for ax in figure.axes] == titles
  # A panel holds its own crop's runs, in the colours of their budgets.
  counts = [len(ax.patches) for ax in figure.axes]
  assert counts == [2 if crops[0] != crops[1] else 4] * len(titles)
  colors = [ax.patches[0].get_edgecolor() for ax in figure.axes]
  assert len(set(colors)) == 1


def test_runs_side_by_side(drawn):
  """CropMix's Figures 4 and 5, and how often each run alone is right."""
  pictures = [
    measurement.Picture(
      i, np.full((8, 8, 3), i), dict.fromkeys(sm.KINDS, np.ones((4, 4)))
    )
    for i in (0, 70)
  ]
  label = np.arange(300) // 60
  wrong = lambda first, end: (
    label,
    np.r_[label[:first], np.full(end - first, 9), label[end:]],
  )
  common = dict(class_names=list("abcde"), pictures=pictures)
  runs = [
    run_of(0, "x", 6, predicted=wrong(0, 30), **common),
    run_of(1, "y", 6, predicted=wrong(20, 37), differing=pictures, **common),
    run_of(2, "y", 6, predicted=wrong(0, 0), data={"name": "z"}, **common),
    run_of(3, "y", 6, predicted=wrong(0, 30), kinds=("gradient",), **common),
  ]
  found = drawn(runs)
  assert {*found} == {
    "entropies.png",
    "maps.png",
    "gradcam.png",
    "differing.png",
  }
  titles = [ax.get_title() for ax in found["gradcam.png"].axes]
  cross, check = "\N{BALLOT X}", "\N{CHECK MARK}"
  assert [t for t in titles if t] == [
    *("a", f"run0\n{cross} class 9", f"run1\n{check} a"),
    *("b", f"run0\n{check} b", f"run1\n{check} b"),
  ]
  titles = [ax.get_title() for ax in found["differing.png"].axes]
  assert f"a\nA {cross} class 9 75%\nB {check} a 75%" in titles
  assert measurement.compare(*runs[:2]) == {
    "runs": ["run0", "run1"],
    "both_right": 263,
    "only_first_right": 7,
    "only_second_right": 20,
    "both_wrong": 10,
    "mcnemar_p": pytest.approx(2 * stats.binom.cdf(7, 27, 0.5)),
  }
  assert measurement.compare(runs[0], runs[3])["mcnemar_p"] == 1
  text = measurement.table(runs)
  assert "Not compared with run0, as evaluated on other data: run2." in text
  assert [row.split("|")[2:7] for row in text.splitlines() if "| run0 " in row][
    1
  ] == [" run1 ", " 263        ", " 7       ", " 20      ", " 10         "]
