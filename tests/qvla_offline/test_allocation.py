"""Gates that are measured where samples are at hand, and a warning where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvla_offline.allocation import Measuring, choose_gates
from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.gates.options import Budget
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.options import SensitivityOptions
from qvla_offline.sensitivity.run import compute_sensitivity
from qvla_ros.errors import QvlaError, QvlaWarning
from tests.support.observations import write_observations

SCHEME = QuantizationScheme(16)
BUDGET = Budget(8.0, bits=(2, 4, 8, 16))
SAMPLES = 4


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("allocation")
    write_random_checkpoint(folder / "tiny")
    write_observations(folder / "data", SAMPLES, seed=5)
    return folder


def scored(place: Path, samples: int):
    options = SensitivityOptions(max_samples=samples, probes=1, scheme=SCHEME)
    measuring = Measuring(place / "tiny", place / "data" / "set_5.jsonl", options, place)
    sensitivity, _ = compute_sensitivity(
        measuring.checkpoint, measuring.calibration, place / f"{samples}.safetensors", options
    )
    return sensitivity, measuring


def test_samples_behind_the_scored_ones_are_measured_on_without_being_asked(place):
    sensitivity, measuring = scored(place, 2)
    gates = choose_gates(sensitivity, BUDGET, SCHEME, {}, measuring)
    assert gates.budget["compared"]["observations"] == SAMPLES - 2
    plain = choose_gates(sensitivity, BUDGET, SCHEME, {}, measuring, measured_samples=0)
    assert "compared" not in plain.budget


def test_without_further_samples_a_warning_says_so_unless_the_number_was_asked_for(place):
    sensitivity, measuring = scored(place, SAMPLES)
    with pytest.warns(QvlaWarning, match="not compared with one width everywhere"):
        gates = choose_gates(sensitivity, BUDGET, SCHEME, {}, measuring)
    assert "compared" not in gates.budget
    with pytest.raises(QvlaError, match="^measured_samples"):
        choose_gates(sensitivity, BUDGET, SCHEME, {}, measuring, measured_samples=2)


def test_a_width_that_saves_nothing_is_never_chosen_even_if_nothing_is_measured(place):
    sensitivity, _ = scored(place, 2)
    gates = choose_gates(sensitivity, BUDGET, SCHEME, {}, None)
    assert 2 not in gates.histogram()
    packed = QuantizationScheme(16, two_bit_storage="int2")
    assert (
        2
        in choose_gates(sensitivity, Budget(7.0, bits=(2, 4, 8, 16)), packed, {}, None).histogram()
    )
