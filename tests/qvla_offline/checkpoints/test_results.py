"""A checkpoint takes the place of an earlier result of its own kind, and of no other checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from qvla_offline.checkpoints.random_checkpoint import random_tokenizer, write_random_checkpoint
from qvla_offline.checkpoints.results import STAMP
from qvla_offline.checkpoints.save import save_checkpoint
from qvla_ros.errors import QvlaError
from tests.support.random_model import random_model

REFUSED = "output directory .*other files in it.*name a new directory"


def write_trained(path: Path) -> Path:
    save_checkpoint(path, random_model(), random_tokenizer("openvla_oft"), {}, step=1)
    return path


def edit_config(path: Path, **keys: object) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | keys))


def published(path: Path) -> Path:
    """As downloaded: in our own layout but for what transformers adds, and no stamp."""
    (write_random_checkpoint(path) / STAMP).unlink()
    edit_config(path, transformers_version="4.40.1", auto_map={})
    return path


def copied_over(path: Path) -> Path:
    """The visible files of a result, which a published checkpoint took the place of."""
    write_random_checkpoint(path)
    shutil.copytree(published(path.with_name("published")), path, dirs_exist_ok=True)
    return path


@pytest.mark.parametrize("make", [published, write_trained, copied_over])
def test_a_checkpoint_that_is_no_earlier_random_one_is_left_alone(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    target = make(tmp_path / "checkpoint")
    before = {file.name: file.read_bytes() for file in target.iterdir()}
    with pytest.raises(QvlaError, match=REFUSED):
        write_random_checkpoint(target, "univla")
    assert {file.name: file.read_bytes() for file in target.iterdir()} == before


@pytest.mark.parametrize("stamped", [True, False])
@pytest.mark.parametrize("write", [write_trained, write_random_checkpoint])
def test_an_earlier_result_is_replaced_also_one_from_before_there_were_stamps(
    tmp_path: Path, write: Callable[[Path], Path], stamped: bool
) -> None:
    target = write(tmp_path / "checkpoint")
    if not stamped:
        (target / STAMP).unlink()
    (target / "notes.txt").write_text("of the last run")
    assert not (write(target) / "notes.txt").exists()


def test_a_trained_policy_takes_the_place_of_no_random_one(tmp_path: Path) -> None:
    target = write_random_checkpoint(tmp_path / "checkpoint")
    with pytest.raises(QvlaError, match=REFUSED):
        write_trained(target)
