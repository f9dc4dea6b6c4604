"""OpenVLA's network: one action an inference, as tokens decoded one after the other.

Source: `predict_action` in `modeling_prismatic.py` of openvla; greedy, batch 1 there.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.checkpoints.llama import Cache
from qvla_offline.checkpoints.model import PolicyInputs, VisionLanguageModel
from qvla_ros.actions import token_actions
from qvla_ros.errors import QvlaError


class CausalModel(VisionLanguageModel):
    """What OpenVLA and UniVLA share: every token sees itself and what came before."""

    def prefix(self, inputs: PolicyInputs) -> Tensor:
        """Decoder tokens [B, patches + L, D]: [BOS][patches][prompt rest]."""
        if inputs.attention_mask is not None:
            fix = "run one observation at a time, or prompts of one length without a mask"
            raise QvlaError(
                "attention_mask", "a mask", "none: this family decodes without padding", fix
            )
        words = self.embed(inputs.input_ids)
        patches = self.projector(self.vision_backbone(inputs.pixel_values))
        return torch.cat([words[:, :1], patches, words[:, 1:]], dim=1)

    def logits(self, hidden: Tensor) -> Tensor:
        """float32 [..., V] from hidden states [..., D]."""
        return self.language_model.lm_head(hidden).float()


class OpenVLA(CausalModel):
    """Normalised actions [B, 1, A].

    Those of `forward` are bin centres, as the policy commands them.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__(config)
        first = config.action_vocabulary - config.n_action_bins
        self._action_tokens = slice(first, config.action_vocabulary)
        self._values = token_actions(
            range(first, config.action_vocabulary), config.action_vocabulary, config.n_action_bins
        )

    def forward(self, inputs: PolicyInputs) -> Tensor:
        tokens = self.generate(inputs)
        actions = token_actions(
            tokens.cpu().numpy(), self.config.action_vocabulary, self.config.n_action_bins
        )
        return torch.from_numpy(actions).to(inputs.pixel_values)[:, None]

    @torch.no_grad()
    def generate(self, inputs: PolicyInputs) -> Tensor:
        """The likeliest tokens, one after the other: int64 [B, A]."""
        cache = Cache()
        decoder = self.language_model.model
        hidden = decoder.causal(self.prefix(inputs), cache)
        tokens = [self.logits(hidden[:, -1]).argmax(-1, keepdim=True)]
        while len(tokens) < self.config.decoding.action_dim:
            hidden = decoder.causal(self.embed(tokens[-1]), cache)
            tokens.append(self.logits(hidden[:, -1]).argmax(-1, keepdim=True))
        return torch.cat(tokens, dim=1)

    def prepare(self, inputs: PolicyInputs) -> PolicyInputs:
        return (
            inputs if inputs.chosen is not None else replace(inputs, chosen=self.generate(inputs))
        )

    def smooth_actions(self, inputs: PolicyInputs) -> Tensor:
        """The mean over all action tokens, by their probability once the likeliest ones before were
        taken.
        """
        tokens = self.choices(inputs)
        sequence = torch.cat([self.prefix(inputs), self.embed(tokens[:, :-1])], dim=1)
        hidden = self.language_model.model.causal(sequence)[:, -self.config.decoding.action_dim :]
        shares = self.logits(hidden)[..., self._action_tokens].softmax(-1)
        values = torch.from_numpy(self._values).to(shares)
        return (shares @ values)[:, None]
