"""The prompts of the families, and what decides between them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.random_checkpoint import (
    variants,
    write_random_checkpoint,
)
from qvla_offline.checkpoints.tokenizer import PROMPT_TEMPLATE
from qvla_offline.families.openvla import PROMPT_TEMPLATE_V01
from qvla_offline.families.univla import HISTORY_TEMPLATE


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {family: write_random_checkpoint(root / family, family, seed=4) for family in variants()}


@pytest.fixture
def copy(directories: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda family: Path(shutil.copytree(directories[family], tmp_path / family))


def test_prompts_are_those_of_the_reference(vectors: dict) -> None:
    history = "<ACT_3><ACT_0><ACT_15><ACT_7>"
    filled = HISTORY_TEMPLATE.replace("{history}", history).replace(
        "{instruction}", "close the drawer"
    )
    assert filled in vectors["prompts_univla_fast_legacy"]
    for template in (PROMPT_TEMPLATE, PROMPT_TEMPLATE_V01):
        assert template.replace("{instruction}", "close the drawer") in vectors["prompts"]


def test_the_first_openvla_has_another_prompt(copy: Callable[[str], Path]) -> None:
    path = copy("openvla")
    assert (
        load_checkpoint(path.rename(path.parent / "openvla-v01-7b")).prompt.template
        == PROMPT_TEMPLATE_V01
    )


def test_a_policy_on_vicuna_has_the_first_openvlas_prompt_wherever_it_lies(
    copy: Callable[[str], Path],
) -> None:
    path = copy("openvla")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "llm_backbone_id": "vicuna-v15-7b"}))
    assert load_checkpoint(path).prompt.template == PROMPT_TEMPLATE_V01


def test_the_path_that_tells_the_first_openvla_may_be_a_link_or_relative(
    copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy("openvla")
    link = path.parent / "openvla-v01-7b"
    link.symlink_to(path)
    assert load_checkpoint(link).prompt.template == PROMPT_TEMPLATE_V01
    link.unlink()
    monkeypatch.chdir(path.rename(link))
    assert load_checkpoint(".").prompt.template == PROMPT_TEMPLATE_V01
