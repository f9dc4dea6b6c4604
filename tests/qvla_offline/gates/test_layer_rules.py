"""Rules for layers by pattern: what they say, and gates that keep to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_offline.gates.assign import assign_gates
from qvla_offline.gates.layer_rules import (
    LayerRule,
    allowed_widths,
    nearest_allowed,
    parse_rules,
)
from qvla_offline.gates.measured import BY_LAYER, keep_best, rivals
from qvla_offline.gates.options import Budget, GatesOptions
from qvla_offline.option_fields import step_values
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.store import Sensitivity
from qvla_ros.errors import QvlaError

SCHEME = QuantizationScheme(16)
BITS = (0, 2, 4, 8)
WIDTHS = (*BITS, 16)
LAYERS = ["language_model.0.fc1", "language_model.0.fc2", "vision_backbone.0.fc1"]


def sensitivity(rows: int = 24, seed: int = 0, layers: list[str] = LAYERS) -> Sensitivity:
    generator = np.random.default_rng(seed)
    falling = 4.0 ** -np.array(BITS)[:, None]
    scores = {n: (falling * generator.lognormal(0, 2, rows)).astype(np.float32) for n in layers}
    return Sensitivity("action", BITS, scores, dict.fromkeys(layers, 64))


def test_widths_floors_and_ceilings_are_read() -> None:
    rules = parse_rules("a.*=4, *.fc2 >= 8,b?<=2")
    assert rules == (
        LayerRule("a.*", "=", 4),
        LayerRule("*.fc2", ">=", 8),
        LayerRule("b?", "<=", 2),
    )
    assert parse_rules(", ".join(map(str, rules))) == rules
    assert parse_rules(None) == parse_rules("") == ()


@pytest.mark.parametrize("wrong", ["a.*", "a.*=5", "=4", "a.*>4", "a.*=4=8", "a.*==4", "a.*=four"])
def test_a_rule_that_is_none_is_named(wrong: str) -> None:
    with pytest.raises(QvlaError, match=r"^layer_bits: got '.*'; expected PATTERN=BITS") as refused:
        parse_rules(f"b.*=4,{wrong}")
    assert repr(wrong) in str(refused.value)


def test_a_later_width_replaces_what_earlier_rules_left_and_bounds_narrow_it() -> None:
    text = "language_model.*>=4,*.fc2=2,vision_backbone.*<=8,vision_backbone.*>=4"
    assert allowed_widths(parse_rules(text), LAYERS, WIDTHS) == {
        "language_model.0.fc1": (4, 8, 16),
        "language_model.0.fc2": (2,),
        "vision_backbone.0.fc1": (4, 8),
    }


@pytest.mark.parametrize(
    ("pattern", "near"),
    [("lang_model.*", "language_model.0.fc1"), ("*.fc3", "fc"), ("vision_backbone", "vision_back")],
)
def test_a_pattern_that_is_no_layers_is_refused_with_near_names(pattern: str, near: str) -> None:
    with pytest.raises(QvlaError, match=r"whose pattern is no layer's.* near names: .*") as refused:
        allowed_widths(parse_rules(f"{pattern}=4"), LAYERS, WIDTHS)
    assert near in str(refused.value).partition("near names: ")[2]


def test_rules_that_leave_a_layer_no_width_name_it() -> None:
    with pytest.raises(QvlaError, match=r"\*<=2, which leaves layer language_model\.0\.fc1 no"):
        allowed_widths(parse_rules("*>=4,*<=2"), LAYERS, WIDTHS)


def test_the_nearest_width_is_the_widest_below_or_else_the_narrowest() -> None:
    allowed = {"a": (2, 4, 8), "b": (8, 16), "c": (2,)}
    assert nearest_allowed(allowed, 4) == {"a": 4, "b": 8, "c": 2}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(7.0, 16.0), st.sampled_from([1, 8]))
def test_gates_keep_to_the_rules_and_to_the_budget(seed: int, target: float, tile: int) -> None:
    rules = "language_model.*=4,*.fc2=8,vision_backbone.*>=4,vision_backbone.*<=8"
    budget = Budget(target, tile=tile, layer_bits=rules)
    gates = assign_gates(sensitivity(seed=seed), budget, SCHEME)
    assert set(gates.layers["language_model.0.fc1"].tolist()) == {4}
    assert set(gates.layers["language_model.0.fc2"].tolist()) == {8}
    assert set(gates.layers["vision_backbone.0.fc1"].tolist()) <= {4, 8}
    assert gates.budget["nominal_bits_per_weight"] <= target
    assert gates.budget["lower_bound"] <= gates.budget["total_sensitivity"] * (1 + 1e-6)


def test_rules_that_every_layer_fulfils_anyway_change_nothing() -> None:
    plain = assign_gates(sensitivity(), Budget(6.0), SCHEME)
    ruled = assign_gates(sensitivity(), Budget(6.0, layer_bits="*>=0,*<=16"), SCHEME)
    assert {n: b.tolist() for n, b in plain.layers.items()} == {
        n: b.tolist() for n, b in ruled.layers.items()
    }


def test_a_width_that_bits_leaves_out_may_be_given_and_one_without_scores_not() -> None:
    budget = Budget(6.0, bits=(0, 2, 4), layer_bits="vision_backbone.*=8")
    assert 8 in assign_gates(sensitivity(), budget, SCHEME).layers["vision_backbone.0.fc1"]
    with pytest.raises(QvlaError, match=r"^layer_bits: got \*=3, which the sensitivity file does"):
        assign_gates(sensitivity(), Budget(6.0, layer_bits="*=3"), SCHEME)


def test_a_budget_below_what_the_rules_leave_names_the_range_that_can_be_reached() -> None:
    """8 bits of 64 weights with one 16-bit scale are 8.25; 4 bits in groups of 16 are 5."""
    rules = "language_model.*>=8,vision_backbone.*=4"
    with pytest.raises(QvlaError, match=r"at least 7\.1667 bits .* at most 12\.3333, which is the"):
        assign_gates(sensitivity(), Budget(7.0, cost="nominal", layer_bits=rules), SCHEME)


def test_rivals_keep_to_the_rules() -> None:
    budget = Budget(6.0, cost="nominal", layer_bits="*.fc2=8,vision_backbone.*<=2")
    scores = sensitivity()
    own = assign_gates(scores, budget, SCHEME)
    others = rivals(own, scores, budget, SCHEME)
    assert list(others) == ["4 bits everywhere", BY_LAYER]
    for gates in others.values():
        assert set(gates.layers["language_model.0.fc2"].tolist()) == {8}
        assert set(gates.layers["vision_backbone.0.fc1"].tolist()) == {2}
        assert gates.budget["nominal_bits_per_weight"] <= 6.0
    assert keep_best(own, scores, budget, SCHEME, lambda layers: 1.0, 1).layers == own.layers


def test_method_released_knows_no_rules() -> None:
    with pytest.raises(QvlaError, match=r"^layer_bits: .* with method released"):
        Budget(method="released", layer_bits="*=4")


@pytest.mark.parametrize("options", [Budget(), GatesOptions(4.0)])
def test_steps_that_name_no_rules_stay_up_to_date(options: Any) -> None:
    assert "layer_bits" not in step_values(options)


def test_gates_of_3_bits_are_priced_as_they_are_and_never_as_stored() -> None:
    scores = sensitivity()
    with_three = Sensitivity(
        "action",
        (2, 3, 8),
        {name: score[1:] for name, score in scores.scores.items()},
        scores.columns,
    )
    budget = assign_gates(with_three, Budget(5.0, bits=(2, 3, 8), cost="nominal"), SCHEME).budget
    assert budget["nominal_bits_per_weight"] <= 5.0
    assert "stored_bits_per_weight" not in budget
    with pytest.raises(QvlaError, match=r"^bits: got \[3\]; expected widths that the engines"):
        assign_gates(with_three, Budget(5.0, bits=(2, 3, 8), cost="stored"), SCHEME)
