"""The denoising loop against what diffusers' DDIM scheduler computes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvla_ros.diffusion import (
    add_noise,
    alphas_cumprod,
    betas,
    denoise,
    denoise_step,
    denoising_steps,
    remove_noise,
    start_noise,
)


def test_the_schedule_is_that_of_the_reference(vectors: dict) -> None:
    expected = vectors["ddim50"]
    assert float(betas()[0]) == expected["beta_0"]
    assert float(betas()[49]) == expected["beta_49"]
    for timestep, value in expected["alphas_cumprod"].items():
        assert float(alphas_cumprod()[int(timestep)]) == value
    assert denoising_steps(50) == [(step, step - 1) for step in range(49, -1, -1)]
    assert denoising_steps(5) == [(40, 30), (30, 20), (20, 10), (10, 0), (0, -10)]


def test_single_steps_are_those_of_the_reference(vectors: dict) -> None:
    case = vectors["ddim50"]
    noisy = np.array(case["x"], np.float32)
    noise = np.array(case["eps"], np.float32)
    for timestep, expected in case["x_prev"].items():
        step = denoise_step(noisy, noise, int(timestep), int(timestep) - 1)
        np.testing.assert_allclose(step, expected, rtol=0, atol=3e-7)


def test_the_loop_finds_what_a_perfect_predictor_knows() -> None:
    actions = np.linspace(-0.9, 0.9, 14).reshape(2, 7)
    asked: list[int] = []

    def predict(noisy: np.ndarray, timestep: int) -> np.ndarray:
        asked.append(timestep)
        alpha = float(alphas_cumprod()[timestep])
        return (noisy - alpha**0.5 * actions) / (1.0 - alpha) ** 0.5

    for steps in (50, 10):
        asked.clear()
        np.testing.assert_allclose(
            denoise(predict, start_noise((2, 7), 3), steps), actions, atol=1e-6
        )
        assert asked == [timestep for timestep, _ in denoising_steps(steps)]


@given(st.integers(0, 49), st.floats(-1, 1), st.floats(-3, 3))
def test_removing_noise_undoes_adding_it(timestep: int, clean: float, noise: float) -> None:
    alpha = float(alphas_cumprod()[timestep])
    noisy = add_noise(np.array([clean]), np.array([noise]), timestep)
    assert remove_noise(noisy, np.array([noise]), timestep)[0] == pytest.approx(
        clean, abs=1e-13 / alpha
    )


def test_noise_is_equal_for_equal_seeds_only() -> None:
    assert start_noise((1, 8, 7), 1).dtype == np.float32
    assert np.array_equal(start_noise((1, 8, 7), 1), start_noise((1, 8, 7), 1))
    assert not np.array_equal(start_noise((1, 8, 7), 1), start_noise((1, 8, 7), 2))
