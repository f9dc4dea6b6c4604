"""The best of three allocations by what was measured: within the budget, and named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.gates import read_gates
from qvla_offline.gates.assign import assign_gates
from qvla_offline.gates.measured import (
    BY_CHANNEL,
    BY_LAYER,
    keep_best,
    require_measurable,
    rivals,
    without_idle_widths,
)
from qvla_offline.gates.options import Budget
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.store import Sensitivity
from qvla_ros.cli.main import main
from qvla_ros.errors import QvlaError
from tests.support.observations import write_observations

SCHEME = QuantizationScheme(16, two_bit_storage="int2")
FOUR = "4 bits everywhere"


def sensitivity() -> Sensitivity:
    """Three layers of unequal weight; the third is never reached."""
    generator = np.random.default_rng(0)
    falling = np.array([1.0, 0.1, 0.01, 1e-4])[:, None]
    scores = {
        name: (size * falling * generator.exponential(1.0, 64)).astype(np.float32)
        for name, size in (("a", 1.0), ("b", 100.0), ("idle", 1.0))
    }
    columns = dict.fromkeys(scores, 128)
    return Sensitivity("action", (0, 2, 4, 8), scores, columns, ("idle",))


@pytest.mark.parametrize("cost", ["nominal", "stored"])
def test_rivals_share_the_budget_and_leave_what_never_runs_at_16_bits(cost: str) -> None:
    budget = Budget(6.5, cost=cost)
    own = assign_gates(sensitivity(), budget, SCHEME)
    found = rivals(own, sensitivity(), budget, SCHEME)
    assert list(found) == [FOUR, BY_LAYER]
    for gates in found.values():
        assert gates.budget[f"{cost}_bits_per_weight"] <= 6.5
        assert (gates.layers["idle"] == 16).all()
        assert all(len(np.unique(row)) == 1 for row in gates.layers.values())
        assert gates.sources == own.sources
        assert gates.budget["total_sensitivity"] >= own.budget["lower_bound"]
    assert (found[FOUR].layers["a"] == 4).all()
    # the sensitive layer gets the wider width
    assert found[BY_LAYER].layers["b"][0] > found[BY_LAYER].layers["a"][0]


@pytest.mark.parametrize("best", [BY_CHANNEL, FOUR, BY_LAYER])
def test_the_least_measured_error_is_kept_and_all_are_written_down(best, capsys) -> None:
    budget = Budget(6.5)
    own = assign_gates(sensitivity(), budget, SCHEME)
    candidates = {BY_CHANNEL: own} | rivals(own, sensitivity(), budget, SCHEME)

    def measure(layers: Mapping[str, np.ndarray]) -> float:
        assert set(layers) == {"a", "b"}  # what never runs cannot be measured
        same = all(np.array_equal(layers[n], candidates[best].layers[n]) for n in layers)
        return 1.0 if same else 3.0

    kept = keep_best(own, sensitivity(), budget, SCHEME, measure, 7)
    for name, row in candidates[best].layers.items():
        np.testing.assert_array_equal(kept.layers[name], row)
    errors = dict.fromkeys(candidates, 3.0) | {best: 1.0}
    assert kept.budget["compared"] == {"observations": 7, "kept": best, "errors": errors}
    printed = capsys.readouterr().out
    assert "7 samples that no score has read" in printed
    assert printed.count("3.00 times the kept") == 2


def test_a_budget_below_every_width_has_no_rivals() -> None:
    own = assign_gates(sensitivity(), Budget(2.0), SCHEME)
    assert rivals(own, sensitivity(), Budget(2.0), SCHEME) == {}


def test_a_width_that_saves_nothing_in_its_container_is_left_out() -> None:
    columns = {"a": 128, "b": 64}
    stored = Budget(4.5, cost="stored")
    int4 = replace(SCHEME, two_bit_storage="int4")
    assert without_idle_widths(stored, columns, int4).bits == (0, 4, 8, 16)
    assert without_idle_widths(stored, columns, SCHEME).bits == (0, 2, 4, 8, 16)
    nominal = Budget(4.5, cost="nominal")
    assert without_idle_widths(nominal, columns, int4).bits == (0, 2, 4, 8, 16)


def test_what_cannot_be_measured_is_refused() -> None:
    require_measurable(0, Budget(method="released"))
    for number, budget in ((-1, Budget()), (8, Budget(method="released"))):
        with pytest.raises(QvlaError, match="^measured_samples"):
            require_measurable(number, budget)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    write_random_checkpoint(folder / "tiny")
    write_observations(folder / "data", 5, seed=5)
    assert verb(folder, "sensitivity", "--probes", 1, "--out_path", folder / "s.safetensors") == 0
    return folder


def verb(place, name: str, *words: object) -> int:
    inputs = ["--pretrained_checkpoint", place / "tiny"]
    inputs += ["--calib_jsonl", place / "data" / "set_5.jsonl"]
    scored = ["--max_samples", 3] if name == "sensitivity" else []
    return main([name, *map(str, [*inputs, *scored, *words])])


def choose(place, name: str, *more: object) -> int:
    return verb(
        place, "gates", "--proxy_pt", place / "s.safetensors", "--out_json", place / name, *more
    )


def test_the_verb_measures_on_samples_behind_the_scored_ones(place, capsys):
    asked = ["--target_avg_bits", 7, "--cost", "stored", "--measured_samples", 9]
    assert choose(place, "kept.json", *asked) == 0
    gates = read_gates(place / "kept.json")
    compared = gates.budget["compared"]
    assert compared["observations"] == 2  # five in the set, three scored
    assert set(compared["errors"]) == {BY_CHANNEL, FOUR, BY_LAYER}
    assert compared["errors"][compared["kept"]] == min(compared["errors"].values())
    assert 2 not in gates.histogram()  # costs as much as 4 bits in an INT4 container
    assert "no score has read" in capsys.readouterr().out


def test_without_a_policy_to_run_it_is_refused_and_the_option_is_named(place, capsys):
    plain = ["gates", "--proxy_pt", place / "s.safetensors", "--out_json", place / "no.json"]
    assert main([*map(str, plain), "--measured_samples", "2"]) == 2
    assert "--pretrained_checkpoint" in capsys.readouterr().err


def test_a_set_without_further_samples_is_refused(place, capsys):
    words = ["--out_path", place / "all.safetensors", "--probes", 1, "--max_samples", 5]
    assert verb(place, "sensitivity", *words) == 0
    asked = ["--proxy_pt", place / "all.safetensors", "--out_json", place / "no.json"]
    asked += ["--target_avg_bits", 7]
    assert verb(place, "gates", *asked, "--measured_samples", 2) == 2
    assert "behind the scored ones" in " ".join(capsys.readouterr().err.split())
    assert not (place / "no.json").exists()


@pytest.mark.parametrize("bits", [2, 4, 16])
def test_one_width_is_a_trivial_allocation(place, bits: int):
    asked = ["--bits", bits, "--target_avg_bits", 16]
    assert choose(place, "one.json", *asked) == 0
    assert set(read_gates(place / "one.json").histogram()) <= {bits, 16}
    executed = read_gates(place / "one.json")
    assert all(
        (row == bits).all()
        for name, row in executed.layers.items()
        if name not in executed.not_executed
    )


def test_one_width_above_the_budget_is_refused_with_the_reachable_number(place, capsys):
    assert choose(place, "one.json", "--bits", 4, "--target_avg_bits", 3) == 2
    assert "at least 5." in capsys.readouterr().err
