"""OpenVLA-OFT: images, proprioception and a prompt in, a chunk of normalised actions out, in one parallel pass.

Source: `modeling_prismatic.py`, `action_heads.py` and `projectors.py` of openvla-oft; parameter names are theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.checkpoints.llama import LlamaForCausalLM
from qvla_offline.checkpoints.vit import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

STOP_TOKEN_ID = 2


@dataclass(frozen=True)
class PolicyInputs:
    """A batch of observations.

    pixel_values: float [B, 3 * backbones * images, S, S]; per image, one normalised RGB triple per backbone.
    input_ids: int64 [B, L], BOS first and the appended token last. proprio: float [B, P], normalised to [-1, 1].
    attention_mask: bool [B, L], false on right padding; None when no row is padded.
    """

    pixel_values: Tensor
    input_ids: Tensor
    proprio: Tensor
    attention_mask: Tensor | None = None

    def to(self, device: torch.device | str) -> PolicyInputs:
        mask = None if self.attention_mask is None else self.attention_mask.to(device)
        return PolicyInputs(self.pixel_values.to(device), self.input_ids.to(device), self.proprio.to(device), mask)


class VisionBackbone(nn.Module):
    """One or two ViTs; their patch features are concatenated on channels, the images' on the sequence."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.featurizer = VisionTransformer(config.vision[0])
        if len(config.vision) > 1:
            self.fused_featurizer = VisionTransformer(config.vision[1])

    def forward(self, pixel_values: Tensor) -> Tensor:
        vits = list(self.children())
        batch, channels, height, width = pixel_values.shape
        num_images = channels // (3 * len(vits))
        views = pixel_values.reshape(batch * num_images, len(vits), 3, height, width)
        features = torch.cat([vit(views[:, index]) for index, vit in enumerate(vits)], dim=-1)
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


class ProprioProjector(nn.Module):
    """Normalised state [B, P] -> one decoder token [B, D]."""

    def __init__(self, proprio_dim: int, hidden_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(proprio_dim, hidden_size)
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
    """Hidden states of the action slots [B, K * A, D] -> normalised actions [B, K, A]; the output is not squashed."""

    def __init__(self, chunk_length: int, action_dim: int, hidden_size: int) -> None:
        super().__init__()
        self.chunk_length = chunk_length
        self.model = ResidualMLP(action_dim * hidden_size, hidden_size, action_dim)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.model(hidden.reshape(len(hidden), self.chunk_length, -1))


class OpenVLAOFT(nn.Module):
    """The policy. `forward(inputs)` gives normalised actions [B, K, A] in the dtype of the weights."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.config = config
        width, oft = config.text.hidden_size, config.oft
        self.vision_backbone = VisionBackbone(config)
        self.projector = Projector(config.vision_width, width, fused=len(config.vision) > 1)
        self.language_model = LlamaForCausalLM(config.text)
        self.action_head = L1Head(oft.chunk_length, oft.action_dim, width)
        self.proprio_projector = ProprioProjector(oft.proprio_dim, width)

    def forward(self, inputs: PolicyInputs) -> Tensor:
        return self.action_head(self.action_hidden_states(inputs))

    def action_hidden_states(self, inputs: PolicyInputs) -> Tensor:
        """Hidden states [B, K * A, D] that the head reads: the last prompt token's, then all placeholders' but one."""
        return self.decode(inputs)[0]

    def decode(self, inputs: PolicyInputs) -> tuple[Tensor, Tensor]:
        """Hidden states of the action slots [B, K * A, D] and of the image patches [B, images * patches, D].

        Sequence: [BOS][patches][proprio][prompt rest][K * A zero embeddings][stop]; every token sees every other.
        """
        patches = self.projector(self.vision_backbone(inputs.pixel_values))
        proprio = self.proprio_projector(inputs.proprio)[:, None]
        embed = self.language_model.model.embed_tokens
        prompt = embed(inputs.input_ids)
        batch, num_slots = len(prompt), self.config.oft.num_placeholders
        placeholders = prompt.new_zeros(batch, num_slots, prompt.shape[-1])
        stop = embed(torch.full_like(inputs.input_ids[:, :1], STOP_TOKEN_ID))
        sequence = torch.cat([prompt[:, :1], patches, proprio, prompt[:, 1:], placeholders, stop], dim=1)

        num_inserted = patches.shape[1] + 1
        first_slot = num_inserted + prompt.shape[1] - 1
        if inputs.attention_mask is None:
            positions = torch.arange(sequence.shape[1], device=sequence.device)[None]
            hidden = self.language_model.model(sequence, positions)
            return hidden[:, first_slot : first_slot + num_slots], hidden[:, 1:num_inserted]

        prompt_mask = inputs.attention_mask.bool()
        seen = prompt_mask.new_ones
        key_mask = torch.cat(
            [prompt_mask[:, :1], seen(batch, num_inserted), prompt_mask[:, 1:], seen(batch, num_slots + 1)], dim=1
        )
        positions = (key_mask.cumsum(1) - 1).clamp_min(0)  # padding takes no position, so a row reads as if unpadded
        hidden = self.language_model.model(sequence, positions, key_mask)
        slots = torch.arange(first_slot, first_slot + num_slots, device=sequence.device).repeat(batch, 1)
        slots[:, 0] = num_inserted + prompt_mask.sum(1) - 1  # the last token that is not padding
        gathered = hidden.gather(1, slots[..., None].expand(-1, -1, hidden.shape[-1]))
        return gathered, hidden[:, 1:num_inserted]
