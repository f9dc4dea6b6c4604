"""A small checkpoint and all that is made of it, and `qvla compare` on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qvla_ros.cli.main import main
from tests.support.quantized_checkpoint import write_quantized_checkpoint


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny, gates.json, bundle, fakequant and held_out; shared, do not change it."""
    return write_quantized_checkpoint(tmp_path_factory.mktemp("compare"))


@pytest.fixture(scope="session")
def compare(place: Path) -> Callable[..., int]:
    """compare(out, *options) runs the verb on three quantizations of the checkpoint."""
    fixed = ["--pretrained_checkpoint", place / "tiny", "--group_size", 16]
    fixed += ["--observations", place / "held_out" / "set_1.jsonl"]
    fixed += ["--uniform", "3,4", "--methods", "rtn", "--bundle", f"mixed@5={place / 'bundle'}"]

    def run(out: Path, *more: object) -> int:
        return main(["compare", *map(str, [*fixed, "--out", out, *more])])

    return run
