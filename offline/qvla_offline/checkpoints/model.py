"""The network that OpenVLA and what was made from it share: ViTs, a projector and a Llama decoder.

Source: `modeling_prismatic.py` of openvla and openvla-oft; parameter names are theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.checkpoints.llama import LlamaForCausalLM
from qvla_offline.checkpoints.vit import VisionTransformer

STOP_TOKEN_ID = 2


@dataclass(frozen=True)
class PolicyInputs:
    """A batch of observations.

    pixel_values: float [B, 3 * backbones * images, S, S]; per image, one normalised RGB triple per
    backbone. input_ids: int64 [B, L], BOS first and the appended token last. proprio: float [B, P],
    normalised to [-1, 1]; None for a policy that reads none. attention_mask: bool [B, L], false on
    right padding; None when no row is padded. chosen: what the policy settles on along the way, see
    `VisionLanguageModel.prepare`.
    """

    pixel_values: Tensor
    input_ids: Tensor
    proprio: Tensor | None = None
    attention_mask: Tensor | None = None
    chosen: Tensor | None = None

    def to(self, device: torch.device | str) -> PolicyInputs:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(
            self,
            **{name: value.to(device) for name, value in values.items() if value is not None},
        )


class VisionBackbone(nn.Module):
    """One or two ViTs; their patch features are concatenated on channels, the images' on the
    sequence.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        film_width = config.text.hidden_size if config.decoding.film else None
        self.featurizer = VisionTransformer(config.vision[0], film_width)
        if len(config.vision) > 1:
            self.fused_featurizer = VisionTransformer(config.vision[1], film_width)

    def forward(self, pixel_values: Tensor, language: Tensor | None = None) -> Tensor:
        """language: mean embedding of the prompt [B, D], for FiLM."""
        vits = list(self.children())
        batch, channels, height, width = pixel_values.shape
        num_images = channels // (3 * len(vits))
        views = pixel_values.reshape(batch * num_images, len(vits), 3, height, width)
        if language is not None:
            language = language.repeat_interleave(num_images, dim=0)
        features = torch.cat(
            [vit(views[:, index], language) for index, vit in enumerate(vits)], dim=-1
        )
        return features.reshape(batch, -1, features.shape[-1])


class Projector(nn.Module):
    """Vision width -> decoder width: three layers after fused backbones, two after a single one."""

    def __init__(self, vision_width: int, hidden_size: int, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        inner = 4 * vision_width if fused else hidden_size
        self.fc1 = nn.Linear(vision_width, inner)
        self.fc2 = nn.Linear(inner, hidden_size)
        if fused:
            self.fc3 = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc2(F.gelu(self.fc1(x)))
        return self.fc3(F.gelu(x)) if self.fused else x


class VisionLanguageModel(nn.Module):
    """The base class of every family's network.

    `forward(inputs)` gives the normalised actions that the policy takes, [B, K, A].
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_backbone = VisionBackbone(config)
        self.projector = Projector(
            config.vision_width, config.text.hidden_size, fused=len(config.vision) > 1
        )
        self.language_model = LlamaForCausalLM(config.text)

    def embed(self, ids: Tensor) -> Tensor:
        """Decoder tokens [B, L, D] of token ids [B, L]."""
        return self.language_model.model.embed_tokens(ids)

    def prepare(self, inputs: PolicyInputs) -> PolicyInputs:
        """`inputs` with the choices that the policy makes on the way (tokens, noisy actions)
        written down.

        What then remains is one pass that is smooth in the weights: sensitivities are measured on
        it.
        """
        return inputs

    def choices(self, inputs: PolicyInputs) -> Tensor:
        """What `prepare` writes down: token ids int64 [B, A], or half noisy actions [B, K, A]."""
        chosen = self.prepare(inputs).chosen
        assert chosen is not None, f"{type(self).__name__} makes no choices"
        return chosen

    def smooth_actions(self, inputs: PolicyInputs) -> Tensor:
        """Normalised actions [B, K, A], differentiable in the weights, in one pass over prepared
        `inputs`.
        """
        return self(inputs)
