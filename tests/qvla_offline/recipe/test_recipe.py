"""Recipes as they are read: their keys, and the values that are refused."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from qvla_offline.error.options import Measurement
from qvla_offline.export.options import ExportOptions
from qvla_offline.gates.options import GatesOptions
from qvla_offline.layer_statistics.options import Gathering
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.recipe import Recipe, read_recipe
from qvla_offline.recipe.recipe import resolve_recipe
from qvla_offline.sensitivity.options import Scoring
from qvla_ros.errors import QvlaError
from tests.support.tiny_recipe import write_inputs, write_recipe

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A directory with a tiny checkpoint and a calibration file."""
    return write_inputs(tmp_path_factory.mktemp("work"))


def test_the_example_names_every_key_that_a_recipe_may_have():
    def keys(kind: type) -> set[str]:
        return {each.name for each in fields(kind)}

    example = yaml.safe_load((ROOT / "config" / "quantize" / "reference.yaml").read_text())
    assert set(example) == keys(Recipe)
    kinds = {
        "sensitivity": Scoring,
        "gates": GatesOptions,
        "scheme": QuantizationScheme,
        "export": ExportOptions,
        "statistics": Gathering,
        "error": Measurement,
    }
    for section, kind in kinds.items():
        assert set(example[section]) == keys(kind), section


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"chekpoint": "x"}, r"chekpoint.*one of .*checkpoint"),
        ({"gates": {"target_avg_bits": 5.0, "cots": "stored"}}, r"gates\.cots.*cost"),
        ({"gates": {}}, r"gates\.target_avg_bits"),
        ({"gates": {"target_avg_bits": "five"}}, r"gates\.target_avg_bits"),
        ({"sensitivity": {"method": "guess"}}, r"sensitivity\.method"),
        ({"scheme": {"group_size": 48}}, r"^bad\.yaml\.scheme\.group_size: got 48"),
        ({"sensitivity": {"refine": -1}}, r"^bad\.yaml\.sensitivity\.refine: got -1"),
        ({"fakequant_dtype": "bfloat16"}, r"^bad\.yaml\.fakequant_dtype: .*'float32'"),
    ],
)
def test_a_wrong_recipe_is_refused_naming_the_key(work, changes, named):
    with pytest.raises(QvlaError, match=named):
        read_recipe(write_recipe(work, "bad.yaml", **changes))


def test_the_fix_of_a_wrong_recipe_names_the_section_and_no_option_of_the_command_line(work):
    with pytest.raises(QvlaError) as caught:
        read_recipe(write_recipe(work, "bad.yaml", sensitivity={"refine": -1}))
    assert caught.value.fix == "in section sensitivity: leave out refine, or raise it"


def test_the_bundled_recipe_is_valid():
    read_recipe(ROOT / "config" / "quantize" / "reference.yaml")


@pytest.mark.parametrize(
    ("scheme", "quantizer"),
    [
        (None, "guided_gptq"),
        ({"group_size": 16}, "guided_gptq"),
        ({"clip_search": True}, "clip_search"),  # as earlier recipes spell it
        ({"clip_search": False}, "rtn"),
        ({"quantizer": "gptq"}, "gptq"),
    ],
)
def test_the_quantizer_of_a_recipe_compensates_unless_another_is_named(work, scheme, quantizer):
    path = write_recipe(work, "quantizer.yaml", scheme=scheme)
    assert resolve_recipe(path).scheme == QuantizationScheme(
        group_size=16 if scheme == {"group_size": 16} else 64, quantizer=quantizer
    )


def test_bits_are_the_scored_ones_and_16_unless_they_are_named(work):
    scored = {"sensitivity": {"bits": [4, 8]}}
    assert resolve_recipe(write_recipe(work, "bits.yaml", **scored)).budget.bits == (4, 8, 16)
    named = {"target_avg_bits": 8.0, "bits": [8, 16]}
    path = write_recipe(work, "bits.yaml", gates=named, **scored)
    assert resolve_recipe(path).budget.bits == (8, 16)


def test_rules_for_layers_reach_the_budget_and_a_wrong_one_names_the_section(work):
    rules = {"target_avg_bits": 8.0, "layer_bits": "language_model.*=8"}
    budget = resolve_recipe(write_recipe(work, "rules.yaml", gates=rules)).budget
    layers = ["language_model.a", "vision_backbone.b"]
    assert budget.widths(layers) == {"language_model.a": (8,), "vision_backbone.b": budget.bits}
    path = write_recipe(work, "wrong.yaml", gates=rules | {"layer_bits": "language_model.*"})
    with pytest.raises(
        QvlaError, match=r"^wrong\.yaml\.gates\.layer_bits: got 'language_model\.\*'"
    ):
        resolve_recipe(path)
