"""Damages files in the ways that disks and people do."""

WAYS = ("delete", "truncate", "flip")
# Orbax restores the same state whatever these files contain.
UNUSED = ("_CHECKPOINT_METADATA", "commit_success.txt")


def files(folder):
  """The files in a folder and its folders."""
  return sorted(p for p in folder.rglob("*") if p.is_file())


def damage(path, way, rng):
  """Deletes a file, cuts it somewhere, or flips one of its bits."""
  content = bytearray(path.read_bytes())
  place = rng.integers(len(content))
  if way == "delete":
    path.unlink()
  elif way == "truncate":
    path.write_bytes(content[:place])
  else:
    content[place] ^= 1 << rng.integers(8)
    path.write_bytes(content)
