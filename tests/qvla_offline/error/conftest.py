"""A checkpoint and all that is made of it, for `qvla error`."""

from __future__ import annotations

import pytest

from tests.support.quantized_checkpoint import write_quantized_checkpoint


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A checkpoint, gates of 2 to 8 bits for it, and all that is made of them."""
    return write_quantized_checkpoint(tmp_path_factory.mktemp("error"))
