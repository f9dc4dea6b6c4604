"""OpenVLA-OFT's heads: numbers become decoder tokens, and hidden states become actions.

Source: `action_heads.py` and `projectors.py` of openvla-oft; parameter names are theirs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NumberProjector(nn.Module):
    """Numbers [..., N] -> decoder tokens [..., D]: the proprioception (N = P), or one noisy action
    number (N = 1).
    """

    def __init__(self, num_inputs: int, hidden_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(num_inputs, hidden_size)
        self.fc2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ffn = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.ffn(x)


class ResidualMLP(nn.Module):
    def __init__(self, num_inputs: int, width: int, num_outputs: int) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(num_inputs)
        self.fc1 = nn.Linear(num_inputs, width)
        self.mlp_resnet_blocks = nn.ModuleList(ResidualBlock(width) for _ in range(2))
        self.layer_norm2 = nn.LayerNorm(width)
        self.fc2 = nn.Linear(width, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc1(self.layer_norm1(x)))
        for block in self.mlp_resnet_blocks:
            x = block(x)
        return self.fc2(self.layer_norm2(x))


class L1Head(nn.Module):
    """Hidden states of the action slots [B, K * A, D] -> normalised actions [B, K, A].

    The output is not squashed.
    """

    def __init__(self, chunk_length: int, action_dim: int, hidden_size: int) -> None:
        super().__init__()
        self.chunk_length = chunk_length
        self.model = ResidualMLP(action_dim * hidden_size, hidden_size, action_dim)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.model(hidden.reshape(len(hidden), self.chunk_length, -1))


class NoisePredictor(nn.Module):
    """Gives the network inside its name, `mlp_resnet`."""

    def __init__(self, num_inputs: int, width: int, num_outputs: int) -> None:
        super().__init__()
        self.mlp_resnet = ResidualMLP(num_inputs, width, num_outputs)


class DiffusionHead(nn.Module):
    """Hidden states of the action slots [B, K * A, D] -> the noise in noisy actions [B, K, A]."""

    def __init__(self, chunk_length: int, action_dim: int, hidden_size: int) -> None:
        super().__init__()
        self.chunk_length = chunk_length
        self.noise_predictor = NoisePredictor(action_dim * hidden_size, hidden_size, action_dim)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.noise_predictor.mlp_resnet(hidden.reshape(len(hidden), self.chunk_length, -1))


def time_token(timestep: Tensor, width: int) -> Tensor:
    """The diffusion time as a decoder token: float32 [B] -> [B, width], sines then cosines, without
    weights.
    """
    half = width // 2
    exponents = torch.arange(half, device=timestep.device) * (-math.log(10000.0) / (half - 1))
    angles = timestep[:, None].float() * exponents.exp()
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
