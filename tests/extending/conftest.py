"""Makes a copy of the checkout, in which a test does what a page of docs/how_to asks.

The nodes and bundles of other tests are fixtures here too.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.extending.page import COPIED, LINKED, ROOT
from tests.qvla_ros.conftest import bundle_dir, make_bundle, manifest  # noqa: F401
from tests.qvla_ros.nodes.conftest import robot, ros_environment, start  # noqa: F401


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The program, its tests and its configuration; to be changed at will."""
    directory = tmp_path / "checkout"
    directory.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name)  # with the bytecode, which saves a second
        else:
            shutil.copy(source, directory / name)
    for name in LINKED:
        (directory / name).symlink_to(ROOT / name)
    return directory
