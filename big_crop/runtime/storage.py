"""Storage of workdirs: local folders, and gs:// through gcsfs.

epath reads gs:// with TensorFlow wherever that is installed. We always use
gcsfs instead, so that workdirs behave the same without TensorFlow and can be
pointed at an emulator. STORAGE_EMULATOR_HOST does so for gcsfs, and
TENSORSTORE_GCS_HTTP_URL for the arrays, which Orbax writes with TensorStore.
"""

import base64
import functools
import logging
import os
import re
import time
import uuid
from urllib import parse

from etils import epath

from big_crop.runtime import outputs
from pp_ops.errors import UserError

_PATIENCE_S = 180.0  # how long to retry if a store does not answer or is busy


def path(name: str | os.PathLike) -> epath.Path:
  """The absolute path of a workdir, or another folder that a command writes to.

  Raises:
    ValueError: for a URL that is not gs://, or a bucket that cannot be used.
  """
  name = os.fspath(name)
  if "://" not in name:
    return epath.Path(name).resolve()
  bucket = name.removeprefix("gs://").partition("/")[0]
  if not name.startswith("gs://") or not bucket:
    raise UserError(f"{name}: give a local folder or gs://BUCKET/FOLDER")
  _use_gcsfs()
  _check(bucket)
  return epath.Path(name)


def is_remote(path: epath.Path) -> bool:
  """Whether a path is on an object store.

  There a write makes a whole object or none, and objects cannot be appended to,
  linked or renamed.
  """
  return os.fspath(path).startswith("gs://")


@functools.cache
def _use_gcsfs():
  """Makes epath, also in Orbax, use gcsfs for every gs:// in this process."""
  try:
    import fsspec
    import gcsfs
    from aiohttp import ClientError, ClientTimeout
    from gcsfs.retry import HttpError, is_retriable
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import storage  # noqa: F401, Orbax needs it
  except ImportError as e:
    raise UserError(
      f"gs:// needs {e.name}, which is not installed: pip install -r "
      "requirements-gs.txt"
    ) from e

  # Based on gcsfs.core, which lacks the extensions for zonal buckets, because
  # these need more rights.
  class Files(gcsfs.core.GCSFileSystem):
    """gcsfs as workdirs need it."""

    def __init__(self, *args, **kwargs):
      super().__init__(
        *args,
        use_listings_cache=False,  # other hosts write, too
        requests_timeout=ClientTimeout(sock_connect=30, sock_read=60),
        **kwargs,
      )

    async def _call(self, method, path, *args, **kwargs):
      start = time.monotonic()
      while True:
        try:
          # gcsfs repeats requests that may be repeated, but only for half a
          # minute; this loop goes on for `_PATIENCE_S`.
          return await super()._call(method, path, *args, **kwargs)
        except (FileNotFoundError, FileExistsError):
          raise
        except (OSError, HttpError, ClientError, GoogleAuthError) as e:
          waited = time.monotonic() - start
          if not is_retriable(e) or waited > _PATIENCE_S:
            raise UserError(_failure(method, path.format(*args), e)) from e

  logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # logs what it raises
  for protocol in Files.protocol:
    fsspec.register_implementation(protocol, Files, clobber=True)
  os.environ["EPATH_USE_TF"] = "false"
  epath.gpath._is_tf_installed.cache_clear()


def _failure(method, path, error):
  """One line for a request to `path` that failed."""
  what = "read" if method == "GET" else "write"
  found = re.search(r"\bb/([^/?]+)(?:/o(?:/|\?name=)?([^?]*))?", path)
  bucket, name = found.groups("") if found else (path, "")
  *_, reason = str(error).splitlines() or [type(error).__name__]
  where = f"{bucket}/{parse.unquote(name)}".rstrip("/")
  return f"cannot {what} gs://{where}: {reason}"


@functools.cache
def _check(bucket):
  from google.api_core.exceptions import GoogleAPIError
  from google.auth.exceptions import GoogleAuthError
  from google.cloud import storage

  try:
    # Orbax makes this request, too, for which the right to read objects is not
    # enough.
    storage.Client().get_bucket(bucket)
  except (GoogleAPIError, GoogleAuthError, OSError) as e:
    raise UserError(f"gs://{bucket} cannot be used: {e}") from e


def _files(path):
  import fsspec

  return fsspec.filesystem("gs"), os.fspath(path)


def write(path: epath.Path, data: str | bytes) -> None:
  """Writes a file atomically, even if others write it at the same time."""
  data = data.encode() if isinstance(data, str) else data
  if is_remote(path):
    files, name = _files(path)
    files.pipe_file(name, data)
  else:
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    with outputs.writing(path):
      temporary.write_bytes(data)
      temporary.replace(path)


def create(path: epath.Path, text: str) -> bool:
  """Makes a file atomically, unless there is one.

  Args:
    path: the file, in a folder that exists.
    text: the content, which must be unique to this attempt.

  Returns:
    Whether this attempt made the file.

  Raises:
    OSError: if the filesystem has no hard links.
  """
  try:
    if is_remote(path):
      files, name = _files(path)
      files.pipe_file(name, text.encode(), mode="create")
    else:
      # A link is atomic on NFS, too.
      temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}"
      temporary.write_text(text)
      try:
        os.link(temporary, path)
      finally:
        temporary.unlink()
  except FileExistsError:
    # If a request is repeated, the second try fails because the first one
    # succeeded. The unique content tells.
    return path.read_text() == text
  return True


def touch(path: epath.Path, text: str) -> None:
  """Sets a file's time of modification to now; `text` must be its content."""
  if is_remote(path):
    write(path, text)
  else:
    os.utime(path)


def modified(path: epath.Path) -> float:
  """A file's time of modification, in seconds, by its storage's clock."""
  # epath's stat of a local file looks up the owner's name, which a container
  # may not have.
  return path.stat().mtime if is_remote(path) else os.stat(path).st_mtime


def contents(folder: epath.Path) -> dict[str, tuple[int, int]]:
  """{name below a folder: (bytes, CRC-32C)}, as the object store knows them."""
  files, name = _files(folder)
  return {
    epath.Path(f"gs://{path}").relative_to(folder).as_posix(): (
      info["size"],
      int.from_bytes(base64.b64decode(info["crc32c"])),
    )
    for path, info in files.find(name, detail=True).items()
  }


class Log:
  """A file that grows: data are in the file once they are flushed.

  On an object store every flush writes the whole file anew, which the store
  accepts about once a second.
  """

  def __init__(self, path: epath.Path, data: bytes = b""):
    """Begins the file with `data`, in place of what was there."""
    self._path, self._before, self._new = path, data, b""
    write(path, data)

  def write(self, data: bytes) -> None:
    """Adds data, which `flush` puts into the file."""
    self._new += data

  def flush(self) -> None:
    """Puts the added data into the file."""
    if is_remote(self._path):
      self._before += self._new
      write(self._path, self._before)
    else:
      with outputs.writing(self._path), self._path.open("ab") as f:
        f.write(self._new)
    self._new = b""
