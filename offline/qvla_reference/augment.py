"""Turns stored samples into network inputs: crop, colour, normalise, and noise for training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Augmentation:
    """Half-widths of uniform noise for training; all zero gives what the robot computes."""

    crop_shift: float = (
        0.008  # fraction of the image; far below the 0.026 of a random crop, which blurs positions
    )
    brightness: float = 0.08
    contrast: float = 0.08
    proprio_std: float = 0.02  # Gaussian, normalised units


NONE = Augmentation(0.0, 0.0, 0.0, 0.0)


def crop_images(
    images: Tensor, area: float, augmentation: Augmentation, generator: torch.Generator
) -> Tensor:
    """Crops near the centre and resizes back bilinearly, to floats in [0, 1].

    uint8 [B, V, S, S, 3] -> float [B, V, 3, S, S]. area: fraction of the pixels that the crop
    keeps. One box and one colour change per sample, shared by its views.
    """
    batch, views, size = images.shape[:3]
    side = area**0.5

    def uniform(half_width: float, columns: int) -> Tensor:
        noise = torch.rand(batch, columns, generator=generator) * 2.0 - 1.0
        return (noise * half_width).to(images.device)

    # align_corners: -1 and 1 are the outer pixels
    axis = torch.linspace(-side, side, size, device=images.device)
    shift = 2.0 * uniform(augmentation.crop_shift, 2)
    columns = (axis[None] + shift[:, :1])[:, None, :].expand(-1, size, -1)
    rows = (axis[None] + shift[:, 1:])[:, :, None].expand(-1, -1, size)
    grid = torch.stack([columns, rows], dim=-1).repeat_interleave(views, dim=0)
    pixels = images.flatten(0, 1).permute(0, 3, 1, 2).float() / 255.0
    cropped = F.grid_sample(
        pixels, grid, mode="bilinear", padding_mode="border", align_corners=True
    )
    cropped = cropped.unflatten(0, (batch, views))
    contrast = 1.0 + uniform(augmentation.contrast, 1)[..., None, None, None]
    brightness = uniform(augmentation.brightness, 1)[..., None, None, None]
    return ((cropped - 0.5) * contrast + 0.5 + brightness).clamp(0.0, 1.0)


def normalize_pixels(images: Tensor, means: Tensor, stds: Tensor) -> Tensor:
    """Normalises pixels for each backbone.

    float [B, V, 3, S, S] -> pixel_values [B, V * backbones * 3, S, S]; means, stds: [backbones, 3].
    """
    shape = (1, 1, len(means), 3, 1, 1)
    normalized = (images[:, :, None] - means.view(shape)) / stds.view(shape)
    return normalized.flatten(1, 3)
