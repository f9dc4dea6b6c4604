"""The denoising loop of OpenVLA-OFT's diffusion head (numpy): DDIM as its evaluation runs it.

`DDIMScheduler` of diffusers with `beta_schedule="squaredcos_cap_v2"` and defaults otherwise: the
network predicts the noise, the clean actions that follow are clipped to [-1, 1], no noise is added
on the way (eta 0), timesteps are evenly spaced from 0 up and taken backwards, and the last step
ends at the clean actions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

NUM_TRAIN_STEPS = 50  # openvla-oft's `num_diffusion_steps_train`
_MAX_BETA = 0.999

Array = TypeVar("Array", bound=Any)  # a numpy array or a torch tensor: the arithmetic is the same


@cache
def betas() -> NDArray[np.float32]:
    """Noise variances of the squared-cosine schedule, float32 [steps]."""

    def signal(fraction: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.cos((fraction + 0.008) / 1.008 * np.pi / 2) ** 2

    edges = signal(np.arange(NUM_TRAIN_STEPS + 1) / NUM_TRAIN_STEPS)
    return np.minimum(1.0 - edges[1:] / edges[:-1], _MAX_BETA).astype(np.float32)


@cache
def alphas_cumprod() -> NDArray[np.float32]:
    """Share of the signal's variance that is left at each timestep, float32 [steps].

    Multiplied wide, as in torch.
    """
    return np.cumprod(np.float32(1.0) - betas(), dtype=np.float64).astype(np.float32)


def _gains(timestep: int) -> tuple[float, float]:
    """The factors of clean actions and of noise at `timestep`.

    Roots are taken in float32, as upstream.

    The first step divides by 1e-3, so that their last bits can be seen in the actions.
    """
    alpha = alphas_cumprod()[timestep]
    return float(np.sqrt(alpha)), float(np.sqrt(np.float32(1.0) - alpha))


def denoising_steps(num_inference_steps: int) -> list[tuple[int, int]]:
    """(timestep, the one that follows) of every step, from the noisiest on.

    Below 0 the actions are clean.
    """
    stride = NUM_TRAIN_STEPS // num_inference_steps
    return [
        (index * stride, (index - 1) * stride) for index in reversed(range(num_inference_steps))
    ]


def add_noise(clean: Array, noise: Array, timestep: int) -> Array:
    """`clean` with as much of `noise` in it as there is at `timestep`; both [..., K, A]."""
    signal, rest = _gains(timestep)
    return clean * signal + noise * rest


def remove_noise(noisy: Array, noise: Array, timestep: int) -> Array:
    """Undoes add_noise: the clean actions from which `noise` made `noisy`, not clipped."""
    signal, rest = _gains(timestep)
    return (noisy - rest * noise) / signal


def denoise_step(noisy: Array, noise: Array, timestep: int, following: int) -> Array:
    """Takes one DDIM step, from `noisy` at `timestep` to the actions at `following`.

    It uses the noise predicted in `noisy`.
    """
    clean = remove_noise(noisy, noise, timestep).clip(-1.0, 1.0)
    return clean if following < 0 else add_noise(clean, noise, following)


def start_noise(shape: tuple[int, ...], seed: int | np.random.Generator) -> NDArray[np.float32]:
    """Standard normal noise to start from, equal for equal seeds."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def denoise(
    predict_noise: Callable[[Array, int], Array], start: Array, num_inference_steps: int
) -> Array:
    """Denoises noise [.., K, A] into normalised actions.

    predict_noise(noisy, timestep) runs the network once.
    """
    noisy = start
    for timestep, following in denoising_steps(num_inference_steps):
        noisy = denoise_step(noisy, predict_noise(noisy, timestep), timestep, following)
    return noisy
