"""Training of the bundled policy learns from made-up episodes, and resumes after a stop."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.random_checkpoint import random_config
from qvla_offline.checkpoints.tokenizer import (
    LIBERO_INSTRUCTIONS,
    PROMPT_TEMPLATE,
    padded_vocabulary,
    train_tokenizer,
)
from qvla_reference.auxiliary import MAX_SENTENCES
from qvla_reference.calibration_set import write_calibration_set
from qvla_reference.demonstrations import episode_path
from qvla_reference.samples import SampleSet
from qvla_reference.train import start, train
from qvla_reference.training_options import TrainingOptions
from qvla_reference.training_state import new_state
from qvla_reference.update import learning_rate_factor
from qvla_reference.validation import is_held_out
from qvla_ros.bundle import PromptSpec
from qvla_ros.errors import QvlaError
from qvla_ros.preprocess import prompt_ids


def tiny_config() -> PolicyConfig:
    tokenizer = train_tokenizer()
    return random_config("tiny", padded_vocabulary(tokenizer), tokenizer.token_to_id("<PAD>"))


def tiny_options(demonstrations: Path, tmp_path: Path, run: str, steps: int) -> TrainingOptions:
    return TrainingOptions(
        demonstrations,
        out=tmp_path / run / "policy",
        work_dir=tmp_path / run / "work",
        steps=steps,
        batch_size=8,
        warmup_steps=2,
        decay_steps=0,
    )


def whole_set(options: TrainingOptions) -> SampleSet:
    samples = SampleSet(options.demonstrations, options.work_dir / "cache", 28, lambda _: True)
    samples.refresh()
    return samples


def test_tokenizer_is_llamas_kind_and_always_the_same() -> None:
    tokenizer = train_tokenizer()
    assert tokenizer.to_str() == train_tokenizer().to_str()
    assert [tokenizer.token_to_id(token) for token in ("<unk>", "<s>", "</s>", "<0x00>")] == [
        0,
        1,
        2,
        3,
    ]
    assert tokenizer.token_to_id("<PAD>") == tokenizer.get_vocab_size() - 1
    prompt = PromptSpec(PROMPT_TEMPLATE, lowercase=True, append_token_id=tokenizer.token_to_id("▁"))
    ids = prompt_ids(prompt, tokenizer, "Pick up the milk")[0]
    assert (ids[0], ids[-1]) == (1, prompt.append_token_id)
    text = tokenizer.decode(ids.tolist())
    assert text.strip() == PROMPT_TEMPLATE.format(instruction="pick up the milk")


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"]), max_size=30))
@settings(max_examples=50, deadline=None)
def test_tokenizer_spells_unknown_words_in_bytes(text: str) -> None:
    tokenizer = train_tokenizer()
    text = " ".join(text.replace("▁", "").split())
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=True).strip() == text


def test_a_stopped_run_goes_on_exactly_where_it_stopped(
    demonstrations: Path, tmp_path: Path
) -> None:
    config = tiny_config()
    lines: list[str] = []
    whole = train(tiny_options(demonstrations, tmp_path, "whole", 6), lines.append, config)
    train(tiny_options(demonstrations, tmp_path, "parts", 3), lines.append, config)
    parts = train(tiny_options(demonstrations, tmp_path, "parts", 6), lines.append, config)
    assert whole.step == parts.step == 6
    for name, tensor in whole.average.state_dict().items():
        assert torch.equal(tensor, parts.average.state_dict()[name]), name
    assert any("resumed" in line for line in lines)


def test_a_run_may_begin_with_an_exported_checkpoint(demonstrations: Path, tmp_path: Path) -> None:
    former = tiny_options(demonstrations, tmp_path, "former", 2)
    train(former, lambda _: None, tiny_config())
    exported = load_checkpoint(former.out)
    options = replace(
        tiny_options(demonstrations, tmp_path, "next", 3), pretrained_checkpoint=former.out
    )
    begun = start(options, tiny_config(), "cpu", whole_set(options), lambda _: None)
    assert (begun.step, begun.warm_from, begun.statistics) == (2, 2, exported.statistics)
    for model in (begun.model, begun.average):
        for name, tensor in exported.model.state_dict().items():
            assert torch.equal(model.state_dict()[name], tensor), name
    lines: list[str] = []
    assert train(options, lines.append, tiny_config()).step == 3
    assert train(replace(options, steps=4), lines.append, tiny_config()).step == 4
    assert [line.split()[0] for line in lines if line.startswith(("started from", "resumed"))] == [
        "started",
        "resumed",
    ]


def test_a_run_does_not_begin_with_a_checkpoint_of_another_architecture(
    demonstrations: Path, tmp_path: Path
) -> None:
    former = tiny_options(demonstrations, tmp_path, "former", 1)
    train(former, lambda _: None, tiny_config())
    tokenizer = train_tokenizer()
    larger = random_config("small", padded_vocabulary(tokenizer), tokenizer.token_to_id("<PAD>"))
    options = replace(
        tiny_options(demonstrations, tmp_path, "next", 1), pretrained_checkpoint=former.out
    )
    with pytest.raises(QvlaError, match=r"pretrained_checkpoint .*such tensors.*reference train"):
        start(options, larger, "cpu", whole_set(options), lambda _: None)


def test_the_export_is_a_checkpoint_with_its_calibration_set(
    demonstrations: Path, tmp_path: Path
) -> None:
    options = tiny_options(demonstrations, tmp_path, "run", 2)
    state = train(options, lambda _: None, tiny_config())
    checkpoint = load_checkpoint(options.out)
    assert checkpoint.step == 2
    weights = state.average.projector.fc1.weight.half().float()
    assert torch.equal(checkpoint.model.projector.fc1.weight, weights)
    lines = [
        json.loads(line) for line in (options.out / "calibration.jsonl").read_text().splitlines()
    ]
    assert len(lines) == 64
    assert len({line["text"] for line in lines}) == 2
    assert all(
        (options.out / line[key]).is_file() for line in lines for key in ("image", "wrist_image")
    )
    assert all(len(line["proprio"]) == 8 for line in lines)
    curve = [
        json.loads(line) for line in (options.work_dir / "curve.jsonl").read_text().splitlines()
    ]
    assert curve[-1]["step"] == 2
    assert np.isfinite(curve[-1]["held_out"])
    assert set(curve[-1]["held_out_of_suite"]) == {"libero_object"}
    assert json.loads((options.out / "dataset_statistics.json").read_text()).keys() == {"libero"}


def test_other_statistics_change_no_action_and_warm_the_rate_up_anew(
    demonstrations: Path, tmp_path: Path
) -> None:
    options = replace(tiny_options(demonstrations, tmp_path, "run", 3), unnorm_key="libero_object")
    before = train(options, lambda _: None, tiny_config())
    moved = {
        **before.statistics,
        "action": {**before.statistics["action"], "q01": [-2.0] * 6 + [0.0]},
    }
    before.statistics = moved  # as if made of other episodes
    saved = options.work_dir / "state.pt"
    before.save(saved, options.decay_from)
    lines: list[str] = []
    after = start(
        replace(options, unnorm_key="libero"),
        tiny_config(),
        "cpu",
        whole_set(options),
        lines.append,
    )
    assert after.unnorm_key == "libero"
    assert after.statistics["action"]["q01"] != moved["action"]["q01"]
    assert after.warm_from == after.step == 3
    assert learning_rate_factor(3, replace(options, steps=9), warm_from=3) == pytest.approx(
        1 / options.rewarm_steps
    )
    assert any("statistics libero" in line for line in lines)


def test_a_prolonged_run_that_had_slowed_down_warms_up_anew(
    demonstrations: Path, tmp_path: Path
) -> None:
    slowing = replace(tiny_options(demonstrations, tmp_path, "run", 4), decay_steps=3)
    state = train(slowing, lambda _: None, tiny_config())
    saved = slowing.work_dir / "state.pt"
    prolonged = new_state(slowing, tiny_config(), "cpu")
    prolonged.load(saved, decay_from=100)
    assert prolonged.warm_from == 4
    same = new_state(slowing, tiny_config(), "cpu")
    same.load(saved, slowing.decay_from)
    assert same.warm_from == 0
    assert state.trained_s == same.trained_s > 0


def test_sentences_keep_their_numbers_and_new_ones_follow(
    demonstrations: Path, tmp_path: Path
) -> None:
    options = tiny_options(demonstrations, tmp_path, "run", 2)
    state = train(options, lambda _: None, tiny_config())
    known = list(state.sentences)
    assert known
    assert len(set(known)) == len(known)
    again = start(options, tiny_config(), "cpu", whole_set(options), lambda _: None)
    again.number_sentences([known[-1], "open the drawer", "open the drawer"])
    assert again.sentences == [*known, "open the drawer"]
    with pytest.raises(QvlaError, match="at most"):
        again.number_sentences([f"sentence {number}" for number in range(MAX_SENTENCES)])


def test_one_episode_in_twenty_is_held_out_of_every_task() -> None:
    def numbers(task_id: int) -> list[int]:
        paths = [
            episode_path(Path("data"), "libero_object", task_id, number) for number in range(40)
        ]
        return [number for number, path in enumerate(paths) if is_held_out(path)]

    assert numbers(0) == numbers(9) == [19, 39]
    assert numbers(15) == [4, 24]  # a suite of many tasks has few episodes of each


def test_the_calibration_set_is_even_over_suites(
    tmp_path: Path, record: Callable[..., Path]
) -> None:
    record(tmp_path / "data", 0, 0, "libero_spatial")
    for task_id in range(1, 6):
        record(tmp_path / "data", task_id, 0, "libero_object")
    prompt = PromptSpec(PROMPT_TEMPLATE, lowercase=True, append_token_id=None)
    write_calibration_set(tmp_path / "data", tmp_path / "out", prompt, count=12)
    lines = [
        json.loads(line) for line in (tmp_path / "out/calibration.jsonl").read_text().splitlines()
    ]
    texts = [line["text"] for line in lines]
    assert sum(LIBERO_INSTRUCTIONS[0] in text for text in texts) == 6
    assert {text for text in texts[:10]} == set(texts)  # every task is among the first


def test_a_finished_run_is_left_alone(demonstrations: Path, tmp_path: Path) -> None:
    options = tiny_options(demonstrations, tmp_path, "run", 2)
    train(options, lambda _: None, tiny_config())
    exported = {path.name: path.read_bytes() for path in options.out.iterdir() if path.is_file()}
    curve = (options.work_dir / "curve.jsonl").read_text()
    lines: list[str] = []
    assert train(replace(options, steps=1), lines.append, tiny_config()).step == 2
    assert any("nothing to do" in line for line in lines)
    assert (options.work_dir / "curve.jsonl").read_text() == curve
    assert exported == {
        path.name: path.read_bytes() for path in options.out.iterdir() if path.is_file()
    }


def test_training_learns(demonstrations: Path, tmp_path: Path) -> None:
    options = replace(tiny_options(demonstrations, tmp_path, "long", 1), precision="float32")
    train(options, lambda _: None, tiny_config())
    train(replace(options, steps=60), lambda _: None, tiny_config())
    curve = [
        json.loads(line) for line in (options.work_dir / "curve.jsonl").read_text().splitlines()
    ]
    assert curve[-1]["training"] < 0.6 * curve[0]["training"]


def test_no_demonstrations_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(QvlaError, match="qvla reference demonstrations"):
        train(tiny_options(tmp_path / "nothing", tmp_path, "run", 1), lambda _: None, tiny_config())


def test_a_run_that_could_not_export_is_refused_before_it_begins(
    demonstrations: Path, tmp_path: Path
) -> None:
    options = tiny_options(demonstrations, tmp_path, "run", 1)
    options.out.mkdir(parents=True)
    (options.out / "config.json").write_text('{"transformers_version": "4.40.1"}')
    with pytest.raises(QvlaError, match="output directory"):
        train(options, lambda _: None, tiny_config())
    assert not options.work_dir.exists()
