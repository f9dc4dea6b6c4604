"""Which options a scoring run takes; the run itself is tested in test_recipe."""

from __future__ import annotations

import math

import pytest

from qvla_offline.sensitivity.run import Scoring
from qvla_ros.cli.main import main
from qvla_ros.errors import QvlaError


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, value) for key in ("max_samples", "probes", "memory_gb") for value in (0, -1)),
        *((key, value) for key in ("memory_gb", "percdamp") for value in (math.nan, math.inf)),
        *((key, -1) for key in ("check", "refine", "seed", "percdamp")),
    ],
)
def test_a_number_out_of_range_or_not_finite_is_refused_by_its_key(key: str, value: float) -> None:
    with pytest.raises(QvlaError, match=f"^{key}: got {value}; .*--{key}"):
        Scoring(**{key: value})


@pytest.mark.parametrize("option", ["--check=-3", "--refine=-1", "--memory_gb=nan"])
def test_the_verb_refuses_it_before_it_looks_at_the_checkpoint(
    option: str, capsys: pytest.CaptureFixture
) -> None:
    paths = ["--pretrained_checkpoint", "absent", "--calib_jsonl", "absent", "--out_path", "absent"]
    assert main(["sensitivity", *paths, option]) == 2
    assert capsys.readouterr().err.startswith(f"error: {option[2:].partition('=')[0]}\n")
