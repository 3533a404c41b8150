"""big_vision for the tests: its own code, or a stand-in for its pp package.

The stand-in has what matters to us: ops that register when their module is
imported, a registry that refuses a name that is taken, and configs that list a
module whose import fails for want of a package.
"""

import importlib
import os
import sys
import textwrap
import types

import tensorflow as tf

PATH = os.environ.get("BIG_VISION_PATH")

_STAND_IN = {
  "__init__": "",
  "registry": """
    class Registry:
      table = {}

      @staticmethod
      def global_registry():
        return Registry.table

      @staticmethod
      def register(name):
        def add(item):
          if name in Registry.table:
            raise KeyError(name)
          Registry.table[name] = item
          return item
        return add
    """,
  "utils": """
    class InKeyOutKey:
      def __init__(self, indefault="image", outdefault="image"):
        self.keys = indefault, outdefault

      def __call__(self, make):
        def get_op(*args, key=None, inkey=None, outkey=None, **kw):
          op = make(*args, **kw)
          inkey = key or inkey or self.keys[0]
          outkey = key or outkey or self.keys[1]
          return lambda data: {**data, outkey: op(data[inkey])}
        return get_op
    """,
  "ops_image": """
    import tensorflow as tf
    from big_vision.pp import utils
    from big_vision.pp.registry import Registry

    @Registry.register("preprocess_ops.inception_crop")
    def get_crop(*args, **kw):
      return lambda data: data

    @Registry.register("preprocess_ops.resize")
    @utils.InKeyOutKey()
    def get_resize(size, method="bilinear", antialias=False):
      def resize(image):
        out = tf.image.resize(image, (size, size), method, antialias=antialias)
        return tf.cast(out, tf.uint8)
      return resize
    """,
  "ops_general": "",
  "archive/__init__": "",
  "archive/randaug": "import a_package_that_is_gone",
}


def use(kind, tmp_path, monkeypatch):
  """Puts big_vision on the path, as in a process that has not imported it.

  Args:
    kind: "real" or "stand-in".
    tmp_path: where the stand-in is written.
    monkeypatch: pytest's.
  """
  if kind == "stand-in":
    for name, text in _STAND_IN.items():
      file = tmp_path / "big_vision" / "pp" / f"{name}.py"
      file.parent.mkdir(parents=True, exist_ok=True)
      file.write_text(textwrap.dedent(text))
    (tmp_path / "big_vision/__init__.py").touch()
  monkeypatch.syspath_prepend(PATH if kind == "real" else tmp_path)
  ours = [m for m in sys.modules if m.startswith("pp_ops.big_vision")]
  theirs = [m for m in sys.modules if m.split(".")[0] == "big_vision"]
  for module in ours + theirs:
    monkeypatch.delitem(sys.modules, module)


def registry():
  """The ops by name, without the prefix that all names have."""
  module = importlib.import_module("big_vision.pp.registry")
  table = module.Registry.global_registry()
  return {k.partition(".")[2]: v for k, v in table.items()}


def addons():
  """A stand-in for what big_vision's RandAugment uses of tensorflow_addons."""

  def transform(image, matrix):
    return tf.raw_ops.ImageProjectiveTransformV3(
      images=image[None],
      transforms=[tf.stack([tf.cast(a, tf.float32) for a in matrix])],
      output_shape=tf.shape(image)[:2],
      interpolation="NEAREST",
      fill_mode="CONSTANT",
      fill_value=0.0,
    )[0]

  def rotate(image, angle):
    right = tf.cast(tf.shape(image)[1] - 1, tf.float32)
    bottom = tf.cast(tf.shape(image)[0] - 1, tf.float32)
    cos, sin = tf.cos(angle), tf.sin(angle)
    x = (right - (cos * right - sin * bottom)) / 2.0
    y = (bottom - (sin * right + cos * bottom)) / 2.0
    return transform(image, [cos, -sin, x, sin, cos, y, 0, 0])

  def translate(image, by):
    return transform(image, [1, 0, -by[0], 0, 1, -by[1], 0, 0])

  image = types.ModuleType("tensorflow_addons.image")
  image.transform, image.rotate, image.translate = transform, rotate, translate
  package = types.ModuleType("tensorflow_addons")
  package.image = image
  return {"tensorflow_addons": package, "tensorflow_addons.image": image}
