"""The references in docs/ are what the code says today."""

import pathlib
import re

import pytest

from big_crop import reference
from big_crop.config import default_config
from pp_ops import registry

DOCS = pathlib.Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("name", reference.PAGES)
def test_pages_are_what_the_code_says(name):
  # To mend it: python -m big_crop.reference
  assert reference.PAGES[name]() == (DOCS / name).read_text()


def test_every_op_and_key_is_explained():
  for name in registry.names():
    text, _ = reference.docstring_of(name)
    assert text, name
  keys = reference.explained_keys()
  assert len(keys) > len(default_config())
  for key, text in keys.items():
    assert re.search(r"`\. .+", text), key
