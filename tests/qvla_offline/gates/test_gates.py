from __future__ import annotations

import heapq
import itertools
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_offline.gates import (
    Pricing,
    optimal,
    read_gates,
    released_greedy,
)
from qvla_offline.gates.assign import assign_gates, describe
from qvla_offline.gates.costs import COSTS
from qvla_offline.gates.optimal import allocate
from qvla_offline.gates.options import Budget
from qvla_offline.quantization.containers import promote_to_tile
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.store import Sensitivity, write_sensitivity
from qvla_ros.errors import QvlaError

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "qvla_vectors.json").read_text())[
    "greedy"
]
BITS = (0, 2, 4, 8, 16)
SCHEME = QuantizationScheme(16)
NOMINAL = Pricing(SCHEME)
STORED = Pricing(SCHEME, "stored")
PROXIES = {
    name: {
        int(bits): np.array(score, dtype=np.float32)
        for bits, score in VECTORS["proxies"][name].items()
    }
    for name in VECTORS["layer_order"]
}


@pytest.mark.parametrize("case", list(VECTORS["results"]))
def test_released_greedy_matches_the_reference(case):
    bits, target = case.removeprefix("bits=").split(" target=")
    found = released_greedy(PROXIES, json.loads(bits), float(target))
    expected = VECTORS["results"][case]
    assert {name: row.tolist() for name, row in found.items()} == expected["assign"]
    assert np.concatenate(list(found.values())).mean() == expected["avg"]


def test_released_greedy_warns_of_a_target_that_it_cannot_reach():
    scores = {"a": {4: np.ones(3), 8: np.zeros(3)}}
    with pytest.warns(UserWarning, match="4 bits per channel reached, 1 asked") as warned:
        assert released_greedy(scores, (4, 8, 16), 1.0)["a"].tolist() == [4, 4, 4]
    assert warned[0].filename == __file__  # it points at who asked


@pytest.mark.parametrize(("target", "expected"), [(8.0, [8, 8, 8]), (4.0, [4, 4, 4])])
def test_released_greedy_says_nothing_of_a_target_that_it_reaches(target, expected):
    scores = {"a": {4: np.ones(3), 8: np.zeros(3)}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert released_greedy(scores, (4, 8, 16), target)["a"].tolist() == expected


def random_scores(
    seed: int, layers: int, rows: int
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Scores that fall with the bits, as sensitivities do, over layers of different widths."""
    generator = np.random.default_rng(seed)
    scores = {}
    columns = {}
    for index in range(layers):
        steps = generator.exponential(1.0, (len(BITS) - 1, rows)) ** 3
        scores[f"layer{index}"] = np.concatenate(
            [np.cumsum(steps[::-1], axis=0)[::-1], np.zeros((1, rows))]
        )
        columns[f"layer{index}"] = int(generator.integers(8, 200))
    return scores, columns


def total_score(scores, layers) -> float:
    position = {bits: index for index, bits in enumerate(BITS)}
    return sum(
        scores[n][position[int(b)], c] for n, row in layers.items() for c, b in enumerate(row)
    )


instances = st.tuples(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 8))


@settings(max_examples=60, deadline=None)
@given(instances, st.floats(2.5, 15.5))
def test_optimal_keeps_within_the_budget_and_reports_what_it_reached(instance, budget):
    scores, columns = random_scores(*instance)
    found = optimal(scores, columns, BITS, budget, NOMINAL)
    assert found.reached_bits_per_weight <= budget + 1e-9
    assert found.reached_bits_per_weight == pytest.approx(
        NOMINAL.bits_per_weight(found.layers, columns)
    )
    assert found.total == pytest.approx(total_score(scores, found.layers))
    assert found.bound <= found.total


@settings(max_examples=60, deadline=None)
@given(instances, st.floats(1.0, 16.0))
def test_no_released_allocation_beats_the_bound_at_its_own_cost(instance, target):
    scores, columns = random_scores(*instance)
    proxies = {name: dict(zip(BITS, score, strict=True)) for name, score in scores.items()}
    released = released_greedy(proxies, BITS, target)
    spent = NOMINAL.bits_per_weight(released, columns)
    found = optimal(scores, columns, BITS, spent, NOMINAL)
    assert found.bound <= total_score(scores, released) * (1 + 1e-9) + 1e-12


def test_optimal_beats_released_greedy_on_many_channels_at_equal_cost():
    scores, columns = random_scores(1, 20, 200)
    proxies = {name: dict(zip(BITS, score, strict=True)) for name, score in scores.items()}
    released = released_greedy(proxies, BITS, 4.0)
    found = optimal(scores, columns, BITS, NOMINAL.bits_per_weight(released, columns), NOMINAL)
    assert found.total < total_score(scores, released)
    assert found.gap < 1e-3


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 5),
    st.lists(st.integers(0, 30), min_size=3, max_size=3),
    st.integers(0, 120),
    st.booleans(),
)
def test_allocation_is_within_one_channel_of_brute_force(seed, channels, steps, budget, with_ties):
    generator = np.random.default_rng(seed)
    scores = (
        generator.integers(0, 4, (channels, 4)).astype(float)
        if with_ties
        else generator.random((channels, 4))
    )
    prices = np.broadcast_to(np.cumsum([0, *steps]), (channels, 4))
    choice, total, bound = allocate(scores, prices, budget)
    assert np.take_along_axis(prices, choice[:, None], 1).sum() <= budget
    best = min(
        sum(scores[c, k] for c, k in enumerate(pick))
        for pick in itertools.product(range(4), repeat=channels)
        if sum(prices[0, k] for k in pick) <= budget
    )
    widest_edge = (scores.max(axis=1) - scores.min(axis=1)).max()
    assert bound <= best + 1e-9
    assert best <= total + 1e-9
    assert total <= best + widest_edge + 1e-9


@settings(max_examples=60, deadline=None)
@given(instances, st.floats(2.5, 15.0), st.floats(0.0, 3.0))
def test_more_budget_never_raises_the_sensitivity(instance, budget, more):
    scores, columns = random_scores(*instance)
    small = optimal(scores, columns, BITS, budget, NOMINAL)
    large = optimal(scores, columns, BITS, budget + more, NOMINAL)
    assert large.total <= small.total * (1 + 1e-12) + 1e-12


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([4.0, 2.0, 7.5, 0.0]))
def test_released_greedy_breaks_ties_by_the_time_of_the_push(seed, target):
    """Scores out of {0, 1, 2} tie all the time.

    The oracle is a heap over (cost, push number) and nothing else.
    """
    generator = np.random.default_rng(seed)
    scores = {bits: generator.integers(0, 3, 6).astype(float) for bits in BITS[:-1]}
    split = {"a": {b: s[:4] for b, s in scores.items()}, "b": {b: s[4:] for b, s in scores.items()}}
    found = released_greedy(split, BITS, target)
    current = [16] * 6
    counter = itertools.count()
    heap = [(scores[8][c] / 8, next(counter), c, 8) for c in range(6)]
    heapq.heapify(heap)
    while heap and sum(current) / 6 > target:
        _, _, channel, lower = heapq.heappop(heap)
        current[channel] = lower
        if lower:
            below = BITS[BITS.index(lower) - 1]
            heapq.heappush(
                heap, (scores[below][channel] / (lower - below), next(counter), channel, below)
            )
    assert np.concatenate([found["a"], found["b"]]).tolist() == current


def test_stored_cost_never_buys_two_bits_when_four_cost_the_same():
    scores, columns = random_scores(3, 3, 50)
    nominal = optimal(scores, columns, BITS, 4.0, NOMINAL)
    stored = optimal(scores, columns, BITS, 6.5, STORED)
    assert any((row == 2).any() for row in nominal.layers.values())
    assert not any((row == 2).any() for row in stored.layers.values())
    assert STORED.bits_per_weight(stored.layers, columns) <= 6.5


def test_budget_below_the_cheapest_gates_and_broken_scores_are_refused():
    scores, columns = random_scores(0, 2, 4)
    with pytest.raises(QvlaError, match="target_avg_bits"):
        optimal({n: s[1:] for n, s in scores.items()}, columns, BITS[1:], 1.0, NOMINAL)
    scores["layer1"][0, 0] = np.nan
    with pytest.raises(QvlaError, match="layer1"):
        optimal(scores, columns, BITS, 8.0, NOMINAL)


def random_sensitivity(seed: int = 0, rows: int = 40) -> Sensitivity:
    scores, columns = random_scores(seed, 5, rows)
    below_16 = {name: score[:-1].astype(np.float32) for name, score in scores.items()}
    return Sensitivity(
        "action", BITS[:-1], below_16, columns, ("layer3",), {"checkpoint_sha256": "c"}
    )


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000),
    st.floats(5.0, 14.0),
    st.sampled_from([1, 8, 16]),
    st.sampled_from(COSTS),
)
def test_assigned_gates_fill_tiles_within_the_budget(seed, target, tile, cost):
    sensitivity = random_sensitivity(seed)
    gates = assign_gates(sensitivity, Budget(target, cost=cost, tile=tile), SCHEME)
    assert gates.budget[f"{cost}_bits_per_weight"] <= target
    assert gates.budget["lower_bound"] <= gates.budget["total_sensitivity"]
    for name in sensitivity.executed():
        bits = gates.layers[name]
        # nothing left to promote
        assert np.array_equal(promote_to_tile(bits, np.zeros(bits.size), tile, SCHEME), bits)


def test_layers_that_never_run_keep_sixteen_bits_and_cost_nothing():
    sensitivity = random_sensitivity()
    gates = assign_gates(sensitivity, Budget(4.0, tile=1), SCHEME)
    assert gates.not_executed == ("layer3",)
    assert set(gates.layers["layer3"].tolist()) == {16}
    executed = {name: width for name, width in sensitivity.columns.items() if name != "layer3"}
    assert (
        gates.budget["nominal_bits_per_weight"]
        == NOMINAL.bits_per_weight(gates.layers, executed)
        <= 4.0
    )


def test_released_assignment_reports_both_their_mean_and_bits_per_weight():
    gates = assign_gates(random_sensitivity(), Budget(4.0, method="released"), SCHEME)
    assert (
        gates.budget["reached_bits_per_channel"]
        == np.concatenate(list(gates.layers.values())).mean()
        <= 4.0
    )
    assert {"nominal_bits_per_weight", "stored_bits_per_weight"} < set(gates.budget)
    assert "gates action/released, 5 layers" in describe(gates)


def test_bits_that_were_not_scored_and_senseless_budgets_are_refused():
    sensitivity = random_sensitivity()
    fewer = Sensitivity(
        "action", (2, 4), {n: s[1:3] for n, s in sensitivity.scores.items()}, sensitivity.columns
    )
    with pytest.raises(QvlaError, match="does not score"):
        assign_gates(fewer, Budget(4.0), SCHEME)
    for bad in ({"method": "best"}, {"bits": (5,)}, {"target_avg_bits": 17.0}, {"tile": 0}):
        with pytest.raises(QvlaError, match=next(iter(bad))):
            Budget(**bad)


@pytest.mark.parametrize(
    "wrong", [{"target_avg_bits": 17.0}, {"target_avg_bits": -1.0}, {"tile": 0}]
)
def test_a_budget_out_of_range_is_refused_with_a_fix(wrong):
    with pytest.raises(QvlaError, match="--target_avg_bits"):
        Budget(**wrong)


def test_choosing_gates_imports_no_torch(tmp_path):
    sensitivity = random_sensitivity()
    write_sensitivity(tmp_path / "s.safetensors", sensitivity)
    words = ["gates", "--proxy_pt", "s.safetensors", "--out_json", "gates.json"]
    code = (
        "import sys; from qvla_ros.cli.main import main; "
        f"failed = main({words}); sys.exit(failed or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert read_gates(tmp_path / "gates.json").method == "action/optimal"
