"""The graph's inputs equal, bit for bit, those of TensorFlow and the reference processor."""

from __future__ import annotations

import hashlib
import json
from ast import literal_eval
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as PillowImage

from qvla_ros.bundle import CameraSpec, PromptSpec
from qvla_ros.errors import QvlaError
from qvla_ros.lanczos import lanczos3_resize
from qvla_ros.preprocess import (
    MAX_INSTRUCTION_BYTES,
    MAX_PROMPT_TOKENS,
    center_crop,
    image_tensor,
    jpeg_round_trip,
    normalize,
    normalize_proprioception,
    prompt_ids,
    prompt_text,
    resized_image,
    rotate_180,
)
from tests.data.make_image_vectors import digest
from tests.data.make_image_vectors import image as random_image

OPENVLA_PROMPT = "In: What action should the robot take to {instruction}?\nOut:"
DINO_BF16 = ((0.484375, 0.455078125, 0.40625), (0.228515625, 0.2236328125, 0.224609375))
SIGLIP = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_IMAGE_VECTORS = Path(__file__).parents[1] / "data" / "image_vectors.json"
IMAGE_CASES = json.loads(_IMAGE_VECTORS.read_text())["cases"]


def _source_image(name: str) -> np.ndarray:
    """The images that `image_defs` of the vectors describes."""
    y, x = np.mgrid[:256, :256]
    if name == "grad":
        return np.stack([x, y, (3 * x + 5 * y) % 256], axis=-1).astype(np.uint8)
    cells = np.random.RandomState(0).randint(0, 256, (16, 16, 3)).astype(np.uint8)
    return np.kron(cells, np.ones((16, 16, 1), np.uint8))


def _ramp_224() -> np.ndarray:
    y, x = np.mgrid[:224, :224]
    return np.stack([y, x, (x + y) // 2], axis=-1).astype(np.uint8)


def _sha256(image: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


@pytest.mark.parametrize("name", ["grad", "blocks"])
def test_the_image_chain_equals_tensorflow_at_every_stage(vectors: dict, name: str) -> None:
    expected = vectors["images"][name]
    image = _source_image(name)
    assert _sha256(image) == expected["source_sha256"]
    decoded = jpeg_round_trip(rotate_180(image), 95)
    assert _sha256(decoded) == expected["rot180_jpeg_decoded_sha256"]
    resized = lanczos3_resize(decoded, 224)
    assert {
        key: resized[literal_eval(key)].tolist() for key in expected["pixels_lanczos"]
    } == expected["pixels_lanczos"]
    assert _sha256(resized) == expected["rot180_jpeg_lanczos224_sha256"]
    cropped = center_crop(resized, 0.9)
    assert {
        key: cropped[literal_eval(key)].tolist() for key in expected["pixels_crop"]
    } == expected["pixels_crop"]
    assert _sha256(cropped) == expected["then_center_crop_sha256"]


def test_the_centre_crop_of_a_ramp_equals_tensorflow(vectors: dict) -> None:
    expected = vectors["images"]["crop224"]
    cropped = center_crop(_ramp_224(), 0.9)
    assert {key: cropped[literal_eval(key)].tolist() for key in expected["pixels"]} == expected[
        "pixels"
    ]
    assert _sha256(cropped) == expected["out_sha256"]


@pytest.mark.parametrize("case", IMAGE_CASES, ids=lambda c: f"{c['width']}x{c['height']}")
def test_random_images_equal_tensorflow(case: dict) -> None:
    height = case["height"]
    width = case["width"]
    size = case["size"]
    for index, (resized, whole_chain) in enumerate(
        zip(case["lanczos"], case["chain"], strict=True)
    ):
        image = random_image(height, width, index)
        assert digest(lanczos3_resize(image, size)) == resized, index
        camera = CameraSpec("camera", height, width, True, 95, size, 0.9, (SIGLIP,))
        assert digest(resized_image(camera, image)) == whole_chain, index


def test_normalised_pixels_equal_the_reference_processor(vectors: dict) -> None:
    camera = CameraSpec("agentview", 224, 224, False, None, 224, None, (DINO_BF16, SIGLIP))
    tensor = image_tensor(camera, _ramp_224())
    assert tensor.shape == (6, 224, 224)
    assert tensor.dtype == np.float32
    for key, expected in vectors["normalised_pixels"]["(y,x)->6 values fp32"].items():
        y, x = literal_eval(key)
        # one unit in the last place
        np.testing.assert_allclose(tensor[:, y, x], expected, rtol=0, atol=2.5e-7)


def test_the_chain_runs_in_the_released_order() -> None:
    camera = CameraSpec("agentview", 256, 256, True, 95, 112, 0.9, (SIGLIP,))
    image = _source_image("blocks")
    expected = center_crop(lanczos3_resize(jpeg_round_trip(rotate_180(image), 95), 112), 0.9)
    np.testing.assert_array_equal(image_tensor(camera, image), normalize(expected, *SIGLIP))


def test_vits_of_another_size_get_what_the_processor_makes_of_the_evaluations_224_pixels() -> None:
    camera = CameraSpec("agentview", 256, 256, True, 95, 384, 0.9, (SIGLIP,), resize_size=224)
    image = _source_image("grad")
    evaluated = center_crop(lanczos3_resize(jpeg_round_trip(rotate_180(image), 95), 224), 0.9)
    processed = PillowImage.fromarray(evaluated).resize((384, 384), PillowImage.Resampling.BICUBIC)
    np.testing.assert_array_equal(
        image_tensor(camera, image), normalize(np.asarray(processed), *SIGLIP)
    )


def test_aloha_images_become_a_square_before_all_else() -> None:
    camera = CameraSpec("cam_high", 480, 640, False, 95, 224, 0.9, (SIGLIP,), bicubic_size=256)
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    square = np.asarray(
        PillowImage.fromarray(image).resize((256, 256), PillowImage.Resampling.BICUBIC)
    )
    expected = center_crop(lanczos3_resize(jpeg_round_trip(square, 95), 224), 0.9)
    np.testing.assert_array_equal(image_tensor(camera, image), normalize(expected, *SIGLIP))


def test_an_image_of_another_size_is_refused_with_both_sizes() -> None:
    camera = CameraSpec("wrist", 256, 256, False, None, 112, None, (SIGLIP,))
    with pytest.raises(QvlaError, match=r"wrist.*\[480, 640, 3\].*\[256, 256, 3\]"):
        image_tensor(camera, np.zeros((480, 640, 3), np.uint8))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 255), st.integers(8, 80), st.integers(8, 80), st.integers(4, 64))
def test_a_flat_image_stays_flat(value: int, height: int, width: int, size: int) -> None:
    resized = lanczos3_resize(np.full((height, width, 3), value, np.uint8), size)
    assert (resized == value).all()
    assert (np.abs(center_crop(resized, 0.9).astype(int) - value) <= 1).all()


def test_prompts_are_the_reference_token_sequences(vectors: dict) -> None:
    """The texts, letter by letter, are what the reference's tokenizer was given.

    What it made of them ends in 29871.
    """
    tokenizer = SimpleNamespace(encode=lambda text: SimpleNamespace(ids=vectors["prompts"][text]))
    spec = PromptSpec(OPENVLA_PROMPT, lowercase=True, append_token_id=29871)
    head, tail = OPENVLA_PROMPT.split("{instruction}")
    texts = [text for text in vectors["prompts"] if text.startswith(head)]
    assert len(texts) == 3  # the fourth is that of OpenVLA's first version
    for text in texts:
        instruction = text.removeprefix(head).removesuffix(tail)
        ids = prompt_ids(spec, tokenizer, f" {instruction.title()} ")
        assert ids.dtype == np.int64
        assert ids.tolist() == [vectors["prompts"][text] + [29871]]


def test_the_appended_token_is_not_doubled() -> None:
    tokenizer = SimpleNamespace(encode=lambda text: SimpleNamespace(ids=[1, 512, 29871]))
    assert prompt_ids(PromptSpec(OPENVLA_PROMPT, True, 29871), tokenizer, "x").tolist() == [
        [1, 512, 29871]
    ]


def test_a_prompt_longer_than_the_graph_takes_is_refused_by_its_source() -> None:
    tokenizer = SimpleNamespace(encode=lambda text: SimpleNamespace(ids=[1] * len(text)))
    longest = "x" * (MAX_PROMPT_TOKENS - 1)
    assert prompt_ids(PromptSpec("{instruction}", True, 29871), tokenizer, longest).shape == (
        1,
        MAX_PROMPT_TOKENS,
    )
    with pytest.raises(QvlaError, match=r"^/instruction: got 257 tokens .*'xxx.*at most 256"):
        prompt_ids(
            PromptSpec("{instruction}", True, 29871), tokenizer, longest + "x", "/instruction"
        )


def test_an_instruction_of_kilobytes_is_refused_before_it_is_tokenized() -> None:
    prompt = PromptSpec("{instruction}", True, None)
    assert prompt_text(prompt, "é" * (MAX_INSTRUCTION_BYTES // 2))
    for text in ("x" * (MAX_INSTRUCTION_BYTES + 1), "é" * (MAX_INSTRUCTION_BYTES // 2 + 1)):
        with pytest.raises(QvlaError, match=r"^/instruction: got \d+ characters") as refused:
            prompt_ids(prompt, None, text, "/instruction")
        assert len(str(refused.value)) < 250


def test_a_blank_instruction_is_refused_by_its_source() -> None:
    prompt = PromptSpec(OPENVLA_PROMPT, True, None)
    with pytest.raises(QvlaError, match="^instruction: got blank text"):
        prompt_text(prompt, "  ")
    with pytest.raises(QvlaError, match="^calibration line 3: got blank text") as refused:
        prompt_ids(prompt, None, "", "calibration line 3")
    assert "publish" not in str(refused.value)


def test_proprioception_equals_the_reference(vectors: dict) -> None:
    case = vectors["proprio_norm"]
    assert normalize_proprioception(case["x"], case["low"], case["high"]).tolist() == case["y"]


def test_proprioception_is_scaled_to_its_range_but_for_masked_numbers() -> None:
    found = normalize_proprioception(
        [2.0, 3.0, 4.0, 0.25, 7.0], [2.0, 2.0, 2.0, -9.0, -9.0], 4.0, [1, 1, 1, 0, 0]
    )
    np.testing.assert_allclose(found, [-1.0, 0.0, 1.0, 0.25, 1.0], atol=1e-8)
    flat = normalize_proprioception([5.0, 5.1], 5.0, 5.0)
    assert flat.tolist() == [-1.0, 1.0]  # a number that never varied does not divide by zero


@given(hnp.arrays(np.float64, 4, elements=st.floats(-1e6, 1e6)))
def test_proprioception_never_leaves_the_unit_range(values: np.ndarray) -> None:
    low = np.array([-1.0, 0.0, 2.0, 5.0])
    high = np.array([1.0, 0.5, 2.0, 9.0])
    normalized = normalize_proprioception(values, low, high, [True, True, True, False])
    assert (np.abs(normalized) <= 1).all()
