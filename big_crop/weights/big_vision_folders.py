"""Reads the folders of arrays that big_vision writes as checkpoints today."""

from etils import epath

from pp_ops.errors import UserError


def find(path: str) -> epath.Path | None:
  """The folder that `path` names: itself, or the last of a run's; or None.

  It is a checkpoint, such as DIR/checkpoint.bv-000012345; or DIR/checkpoint.bv,
  beside which a file DIR/checkpoint.bv-LAST holds the end of its name.
  """
  last = epath.Path(f"{path}-LAST")
  if last.exists():
    path = f"{path}-{last.read_text().strip()}"
  folder = epath.Path(path)
  is_one = folder.is_dir() and any(
    f.name.startswith("params~") for f in folder.iterdir()
  )
  return folder if is_one else None


def load(folder: epath.Path, collection: str) -> dict:
  """Reads a collection, "params" say: {"params/head/bias": array, ...}.

  big_vision names an array's folder by the path in the tree, with ~ for /.
  """
  import tensorstore  # Orbax needs it, too

  arrays = {}
  for place in sorted(folder.iterdir()):
    name = place.name.rstrip("/").replace("~", "/")
    if name.startswith(f"{collection}/"):
      store = tensorstore.KvStore.Spec(_url(place))
      spec = {"driver": "zarr", "kvstore": store.to_json()}
      try:
        arrays[name] = (
          tensorstore.open(spec, open=True).result().read().result()
        )
      except ValueError as e:
        reason = str(e).partition("\n")[0]
        raise UserError(f"{place} can't be read as an array: {reason}") from e
  return arrays


def _url(place):
  text = str(place)
  return text if "://" in text else f"file://{place.resolve()}"
