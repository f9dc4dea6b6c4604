"""How often the graph runs for one inference, what becomes of its outputs, and what is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from qvla_ros.actions import ensemble, token_actions
from qvla_ros.bundle import Bundle, DecoderSpec, DiffusionSpec, LatentSpec, TokenSpec, load_bundle
from qvla_ros.decoding import make_decoder
from qvla_ros.diffusion import denoise, start_noise
from qvla_ros.engines import load_engine
from qvla_ros.errors import QvlaError
from qvla_ros.observation import Observation
from qvla_ros.policy import Policy
from qvla_ros.preprocess import prompt_text

HISTORY = "In: What to do to {instruction}? History action {history}\nOut:"
TOKENS = DecoderSpec("action_tokens", tokens=TokenSpec(32000, 256))
DIFFUSION = DecoderSpec("diffusion", diffusion=DiffusionSpec(num_steps=10, seed=3))
BLOCKING = DecoderSpec(
    "univla", latents=LatentSpec(4, 50, 7, ensemble_length=0, history_template=None)
)
ENSEMBLED = DecoderSpec(
    "univla", latents=LatentSpec(4, 50, None, ensemble_length=3, history_template=HISTORY)
)


class RecordingEngine:
    """Answers with `answer(inputs)`; keeps what it was asked."""

    name = "recording"
    needs_warm_up = True

    def __init__(self, answer: Callable[[dict], dict]) -> None:
        self.answer = answer
        self.asked = []

    def run(self, inputs: dict) -> dict:
        self.asked.append(inputs)
        return self.answer(inputs)

    def close(self) -> None:
        pass


@pytest.fixture
def bundle(bundle_dir: Path) -> Bundle:
    return load_bundle(bundle_dir)


@pytest.fixture
def tokenizer(bundle_dir: Path) -> Tokenizer:
    """The tiny one, with UniVLA's latent action tokens."""
    tokenizer = Tokenizer.from_file(str(bundle_dir / "tokenizer.json"))
    tokenizer.add_special_tokens([f"<ACT_{index}>" for index in range(16)])
    return tokenizer


def with_decoder(bundle: Bundle, decoder: DecoderSpec, chunk_length: int = 4) -> Bundle:
    return replace(
        bundle, decoder=decoder, actions=replace(bundle.actions, chunk_length=chunk_length)
    )


def test_action_tokens_become_one_action(bundle: Bundle, tokenizer: Tokenizer) -> None:
    tokens = np.array([[31999, 31744, 31872, 2, 31900, 31800, 31872]])
    engine = RecordingEngine(lambda _: {"action_tokens": tokens})
    decoder = make_decoder(with_decoder(bundle, TOKENS, 1), tokenizer)
    actions = decoder.run(engine, {})
    assert actions.shape == (1, 1, 7)
    np.testing.assert_array_equal(actions[0], token_actions(tokens, 32000))
    assert decoder.range_epsilon == 0.0


def test_a_token_policy_commands_what_the_reference_un_normalises(
    bundle: Bundle, vectors: dict
) -> None:
    case = vectors["unnorm"]
    low = np.resize(case["low"], 7)
    high = np.resize(case["high"], 7)
    mask = np.resize(case["mask"], 7)
    statistics = replace(bundle.statistics["action"], low=low, high=high, mask=mask)
    bundle = replace(
        with_decoder(bundle, TOKENS, 1), statistics={**bundle.statistics, "action": statistics}
    )
    engine = RecordingEngine(
        lambda _: {"action_tokens": np.array([[31999, 31872, 31744] * 2 + [31999]])}
    )
    images = {camera.name: np.zeros((32, 32, 3), np.uint8) for camera in bundle.cameras}
    actions = Policy(bundle, engine).infer(Observation(images, np.zeros(8), "pick", 0, {})).actions
    assert actions[0, :3].tolist() == case["cases"][0]["openvla"]


def test_a_guess_is_corrected_until_the_graph_confirms_it(
    bundle: Bundle, tokenizer: Tokenizer
) -> None:
    """Each token follows from all before it, as in a causal network."""
    start = 3

    def follow(tokens: list[int]) -> int:
        return (31 * sum((place + 1) * token for place, token in enumerate(tokens)) + start) % 1000

    def answer(inputs: dict) -> dict:
        guess = inputs["guess"][0].tolist()
        return {"action_tokens": np.array([[follow(guess[:count]) for count in range(7)]])}

    truth: list[int] = []
    while len(truth) < 7:
        truth.append(follow(truth))
    engine = RecordingEngine(answer)
    decoder = make_decoder(with_decoder(bundle, replace(TOKENS, guessed=True), 1), tokenizer)
    actions = decoder.run(engine, {})
    np.testing.assert_array_equal(actions[0, 0], token_actions(truth, 32000))
    assert len(engine.asked) <= 7
    assert engine.asked[-1]["guess"].dtype == np.int64
    # Of the seven tokens the last is what follows, and no part of the guess.
    assert {inputs["guess"].shape for inputs in engine.asked} == {(1, 6)}
    engine.asked.clear()
    np.testing.assert_array_equal(decoder.run(engine, {})[0, 0], token_actions(truth, 32000))
    assert len(engine.asked) == 1  # nothing has changed since the last look
    start = 4
    decoder.run(engine, {})
    assert 1 < len(engine.asked) <= 1 + 7


def test_only_tokens_are_guessed() -> None:
    with pytest.raises(QvlaError, match=r"decoder\.guessed"):
        replace(DIFFUSION, guessed=True)


def test_diffusion_runs_the_graph_once_a_step_from_seeded_noise(
    bundle: Bundle, tokenizer: Tokenizer
) -> None:
    engine = RecordingEngine(lambda inputs: {"noise": 0.5 * inputs["noisy_actions"] - 0.1})
    bundle = with_decoder(bundle, DIFFUSION)
    actions = make_decoder(bundle, tokenizer).run(engine, {"input_ids": np.ones((1, 3), np.int64)})
    assert [int(inputs["timestep"][0]) for inputs in engine.asked] == list(range(45, -1, -5))
    assert all(inputs["noisy_actions"].dtype == np.float32 for inputs in engine.asked)
    assert all(inputs["input_ids"].shape == (1, 3) for inputs in engine.asked)
    start = start_noise((1, 4, 7), np.random.default_rng(3))
    np.testing.assert_array_equal(engine.asked[0]["noisy_actions"], start)
    np.testing.assert_array_equal(actions, denoise(lambda noisy, _: 0.5 * noisy - 0.1, start, 10))


def test_each_look_of_a_diffusion_policy_starts_from_other_noise(
    bundle: Bundle, tokenizer: Tokenizer
) -> None:
    engine = RecordingEngine(lambda inputs: {"noise": inputs["noisy_actions"]})
    decoder = make_decoder(with_decoder(bundle, DIFFUSION), tokenizer)
    for _ in range(2):
        decoder.run(engine, {})
    assert not np.array_equal(engine.asked[0]["noisy_actions"], engine.asked[10]["noisy_actions"])


def test_latent_tokens_are_drawn_with_seeded_gumbel_noise(
    bundle: Bundle, tokenizer: Tokenizer
) -> None:
    chunk = np.random.default_rng(0).uniform(-1, 1, (1, 4, 7))
    engine = RecordingEngine(
        lambda _: {"actions": chunk, "latent_tokens": np.array([[10, 11, 12, 13]])}
    )
    decoder = make_decoder(with_decoder(bundle, BLOCKING), tokenizer)
    actions = [decoder.run(engine, {}) for _ in range(200)]
    np.testing.assert_array_equal(actions[0], chunk)
    noise = np.stack([inputs["sampling_noise"] for inputs in engine.asked])
    assert (noise.shape, noise.dtype) == ((200, 1, 4, 50), np.float32)
    assert noise.mean() == pytest.approx(np.euler_gamma, abs=0.03)
    assert noise.std() == pytest.approx(np.pi / 6**0.5, abs=0.03)
    greedy = replace(BLOCKING, latents=replace(BLOCKING.latents, seed=None))
    make_decoder(with_decoder(bundle, greedy), tokenizer).run(engine, {})
    assert not engine.asked[-1]["sampling_noise"].any()


def test_ensembling_is_that_of_the_reference(vectors: dict) -> None:
    chunks: list[np.ndarray] = []
    for number, expected in enumerate(vectors["temporal_ensemble"]["out_t0..5"]):
        chunks.insert(0, (10.0 * number + np.arange(4))[:, None])
        assert ensemble(chunks[:4])[0] == pytest.approx(expected, abs=1e-7)


def test_an_ensembled_policy_averages_looks_until_it_is_reset(
    bundle: Bundle, tokenizer: Tokenizer
) -> None:
    outputs = iter(np.random.default_rng(0).uniform(-1, 1, (6, 1, 3, 7)))
    given: list[np.ndarray] = []

    def answer(_: dict) -> dict:
        given.append(next(outputs))
        return {"actions": given[-1], "latent_tokens": np.array([[10, 11, 12, 13]])}

    engine = RecordingEngine(answer)
    decoder = make_decoder(with_decoder(bundle, ENSEMBLED, 1), tokenizer)
    decoder.prompt("pick")
    for number in range(5):
        actions = decoder.run(engine, {})
        newest_first = [chunk[0] for chunk in given[::-1]][:3]
        assert actions.shape == (1, 1, 7), number
        np.testing.assert_allclose(actions[0, 0], ensemble(newest_first))
    decoder.reset()
    np.testing.assert_allclose(decoder.run(engine, {})[0, 0], given[-1][0, 0])


def test_the_tokens_of_the_last_inference_are_in_the_next_prompt(
    bundle: Bundle, tokenizer: Tokenizer
) -> None:
    first = tokenizer.token_to_id("<ACT_0>")
    answers = iter([[first + 3, first, first + 15, first + 7], [first + 1, 5, first + 2, 6]])
    engine = RecordingEngine(
        lambda _: {"actions": np.zeros((1, 3, 7)), "latent_tokens": np.array([next(answers)])}
    )
    decoder = make_decoder(with_decoder(bundle, ENSEMBLED, 1), tokenizer)

    def prompt() -> str:
        return prompt_text(decoder.prompt("pick"), "pick")

    assert prompt() == prompt_text(bundle.prompt, "pick")
    decoder.run(engine, {})
    assert prompt() == "In: What to do to pick? History action <ACT_3><ACT_0><ACT_15><ACT_7>\nOut:"
    decoder.run(engine, {})
    # Two of the four are no latent actions; the released code then tells the last two of the prompt
    # again.
    assert prompt() == "In: What to do to pick? History action <ACT_15><ACT_7><ACT_1><ACT_2>\nOut:"
    assert decoder.prompt("place") == bundle.prompt
    assert prompt() == prompt_text(bundle.prompt, "pick")


def test_a_policy_forgets_when_it_is_reset(
    bundle: Bundle, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    outputs = iter(np.linspace(-0.8, 0.8, 12))
    engine = RecordingEngine(
        lambda _: {"actions": np.full((1, 3, 7), next(outputs)), "latent_tokens": np.zeros((1, 4))}
    )
    plain = replace(ENSEMBLED, latents=replace(ENSEMBLED.latents, history_template=None))
    policy = Policy(with_decoder(bundle, plain, 1), engine)
    policy.warm_up()
    images = {camera.name: np.zeros((32, 32, 3), np.uint8) for camera in bundle.cameras}

    def infer() -> float:
        return policy.infer(Observation(images, np.zeros(8), "pick", 0, {})).actions[0, 0]

    values = np.linspace(-0.8, 0.8, 12)
    assert infer() == pytest.approx(values[2])  # nothing is left of the warm-up
    assert values[2] < infer() < values[3]
    policy.reset()
    assert infer() == pytest.approx(values[4])


@pytest.mark.parametrize("decoder", [TOKENS, DIFFUSION, BLOCKING, ENSEMBLED])
def test_engines_that_read_nothing_run_once_an_inference(
    bundle: Bundle, tokenizer: Tokenizer, tmp_path: Path, decoder: DecoderSpec
) -> None:
    single = decoder in (TOKENS, ENSEMBLED)
    bundle = with_decoder(bundle, decoder, 1 if single else 4)
    chunks = np.arange(2.0)[:, None, None] * np.ones((2, bundle.actions.chunk_length, 7)) / 10
    np.save(tmp_path / "chunks.npy", chunks)
    engine = load_engine(bundle, "replay", path=str(tmp_path / "chunks.npy"))
    made = make_decoder(bundle, tokenizer)
    assert made.run(engine, {})[0, 0, 0] == 0.0
    assert made.run(engine, {})[0, 0, 0] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"kind": "action_tokens"}, "decoder.tokens"),
        ({"kind": "l1_chunk", "diffusion": DiffusionSpec(5, 0)}, "decoder.diffusion"),
        ({"kind": "univla", "tokens": TokenSpec(32000, 256)}, "decoder.tokens"),
    ],
)
def test_a_decoder_whose_parts_do_not_fit_its_kind_is_refused(
    arguments: dict[str, Any], key: str
) -> None:
    with pytest.raises(QvlaError, match=key):
        DecoderSpec(**arguments)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: DiffusionSpec(51, 0), "num_steps"),
        (lambda: TokenSpec(10, 256), "num_bins"),
        (lambda: LatentSpec(4, 0, None, 0, None), "top_k"),
        (lambda: LatentSpec(4, 50, None, 0, "do {instruction}"), "history_template"),
    ],
)
def test_decoder_numbers_out_of_range_are_refused(make: Callable[[], object], key: str) -> None:
    with pytest.raises(QvlaError, match=key):
        make()


def test_one_action_a_look_and_longer_chunks_exclude_each_other(bundle: Bundle) -> None:
    for decoder in (TOKENS, ENSEMBLED):
        with pytest.raises(QvlaError, match=r"actions\.chunk_length"):
            with_decoder(bundle, decoder, 4)


def test_a_history_without_latent_tokens_in_the_vocabulary_is_refused(
    bundle: Bundle, bundle_dir: Path
) -> None:
    plain = Tokenizer.from_file(str(bundle_dir / "tokenizer.json"))
    with pytest.raises(QvlaError, match="<ACT_0>"):
        make_decoder(with_decoder(bundle, ENSEMBLED, 1), plain)
