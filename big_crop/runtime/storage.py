"""Where workdirs are: local folders, and gs:// through gcsfs.

epath reads gs:// with TensorFlow wherever that is installed. Workdirs go
through gcsfs in any case, so that they are the same without TensorFlow, and can
be pointed at an emulator: STORAGE_EMULATOR_HOST for gcsfs, and for the arrays,
which Orbax writes with TensorStore, TENSORSTORE_GCS_HTTP_URL.
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

_PATIENCE_S = 180.0  # with a store that does not answer, or that is too busy


def path(name: str | os.PathLike) -> epath.Path:
  """A workdir, or another folder that a command writes to; absolute.

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

  There a write makes a whole object or none, and nothing can be appended to,
  linked or renamed.
  """
  return os.fspath(path).startswith("gs://")


@functools.cache
def _use_gcsfs():
  """Puts gcsfs behind every gs:// of epath's in this process, also in Orbax."""
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

  # Without the extensions for zonal buckets, which ask for more rights.
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
          # Repeats what may be repeated, but for half a minute only.
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
    # Orbax asks for it, too: the right to read objects is not enough.
    storage.Client().get_bucket(bucket)
  except (GoogleAPIError, GoogleAuthError, OSError) as e:
    raise UserError(f"gs://{bucket} cannot be used: {e}") from e


def _files(path):
  import fsspec

  return fsspec.filesystem("gs"), os.fspath(path)


def write(path: epath.Path, data: str | bytes) -> None:
  """Writes a file, whole or not at all, whoever else is writing it."""
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
  """Makes a file, whole or not at all, unless there is one.

  Args:
    path: the file, in a folder that exists.
    text: unlike that of any other attempt.

  Returns:
    Whether it was made.

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
    # A repeated request may report its own success as a failure.
    return path.read_text() == text
  return True


def touch(path: epath.Path, text: str) -> None:
  """Makes a file as new as one just written; `text` is what is in it."""
  if is_remote(path):
    write(path, text)
  else:
    os.utime(path)


def modified(path: epath.Path) -> float:
  """When a file was last written, by the clock of what it lies on."""
  # On local files epath asks for the owner's name, whom a container may lack.
  return path.stat().mtime if is_remote(path) else os.stat(path).st_mtime


def contents(folder: epath.Path) -> dict[str, tuple[int, int]]:
  """{name below a folder: bytes, CRC-32C}, as an object store knows them."""
  files, name = _files(folder)
  return {
    epath.Path(f"gs://{path}").relative_to(folder).as_posix(): (
      info["size"],
      int.from_bytes(base64.b64decode(info["crc32c"])),
    )
    for path, info in files.find(name, detail=True).items()
  }


class Log:
  """A file that grows: what is flushed stays.

  On an object store every flush writes all of it anew, which it takes once a
  second.
  """

  def __init__(self, path: epath.Path, data: bytes = b""):
    """Begins the file with `data`, in place of what was there."""
    self._path, self._before, self._new = path, data, b""
    write(path, data)

  def write(self, data: bytes) -> None:
    """Adds data, which `flush` puts into the file."""
    self._new += data

  def flush(self) -> None:
    """Puts into the file what was added."""
    if is_remote(self._path):
      self._before += self._new
      write(self._path, self._before)
    else:
      with outputs.writing(self._path), self._path.open("ab") as f:
        f.write(self._new)
    self._new = b""
