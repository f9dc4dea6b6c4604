"""Every file that a checkpoint's numbers depend on changes its hash."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.fingerprint import checkpoint_sha256

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "whole")


@pytest.fixture
def base(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "base"))


def write_adapter(folder: Path, base: str) -> None:
    folder.mkdir(exist_ok=True)
    save_file({"factor": torch.ones(2)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(
        json.dumps({"r": 2, "base_model_name_or_path": base})
    )


def edit(file: Path) -> None:
    if file.suffix == ".safetensors":
        tensors = load_file(file)
        save_file({name: tensor + 1 for name, tensor in tensors.items()}, file)
    elif file.suffix == ".pt":
        state = torch.load(file, weights_only=True)
        torch.save({name: tensor + 1 for name, tensor in state.items()}, file)
    else:
        file.write_text(json.dumps({**json.loads(file.read_text()), "r": 4}))


@pytest.mark.parametrize(
    "name", [WEIGHTS, "config.json", "action_head--1000_checkpoint.pt", "tokenizer.json"]
)
def test_weights_and_configuration_count_and_other_files_do_not(base: Path, name: str) -> None:
    before = checkpoint_sha256(base)
    (base / "README.md").write_text("trained on a Tuesday")
    assert checkpoint_sha256(base) == before
    edit(base / name)
    assert checkpoint_sha256(base) != before


@pytest.mark.parametrize("folder", [".", "lora_adapter"])
@pytest.mark.parametrize(
    "edited",
    ["{adapter}/adapter_config.json", "{adapter}/adapter_model.safetensors", f"../base/{WEIGHTS}"],
)
def test_an_adapter_and_the_base_that_it_names_count(
    base: Path, tmp_path: Path, folder: str, edited: str
) -> None:
    tuned = Path(shutil.copytree(base, tmp_path / "tuned"))
    (tuned / WEIGHTS).unlink()
    write_adapter(tuned / folder, str(base))
    before = checkpoint_sha256(tuned)
    edit(tuned / edited.format(adapter=folder))
    assert checkpoint_sha256(tuned) != before
