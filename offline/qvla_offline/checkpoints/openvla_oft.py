"""OpenVLA-OFT's network: a chunk of normalised actions in one parallel pass.

Source: `modeling_prismatic.py` of openvla-oft; parameter names are theirs.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.checkpoints.heads import DiffusionHead, L1Head, NumberProjector, time_token
from qvla_offline.checkpoints.llama import Sight
from qvla_offline.checkpoints.model import STOP_TOKEN_ID, PolicyInputs, VisionLanguageModel
from qvla_ros.diffusion import NUM_TRAIN_STEPS, add_noise, denoise, remove_noise, start_noise

PREPARING_STEPS = 5  # denoising steps for the actions around which `smooth_actions` is smooth
# about as much noise as signal: an error of the noise is one of the actions
SMOOTH_TIMESTEP = NUM_TRAIN_STEPS // 2


class OpenVLAOFT(VisionLanguageModel):
    """Parallel decoding with the L1 head (`forward` is one pass) or the diffusion head (`forward`
    denoises).
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__(config)
        width = config.text.hidden_size
        decoding = config.decoding
        self.diffusion = decoding.kind == "diffusion"
        sizes = (decoding.chunk_length, decoding.action_dim, width)
        self.action_head: DiffusionHead | L1Head = (
            DiffusionHead(*sizes) if self.diffusion else L1Head(*sizes)
        )
        if decoding.proprio_dim:
            self.proprio_projector = NumberProjector(decoding.proprio_dim, width)
        if self.diffusion:
            self.noisy_action_projector = NumberProjector(1, width)

    def forward(self, inputs: PolicyInputs) -> Tensor:
        if not self.diffusion:
            return self.action_head(self.action_hidden_states(inputs))
        return self.denoise(inputs, self.config.decoding.diffusion_steps)

    def prepare(self, inputs: PolicyInputs) -> PolicyInputs:
        """Diffusion: the policy's own actions (in few steps) with half of them turned to noise."""
        if not self.diffusion or inputs.chosen is not None:
            return inputs
        with torch.no_grad():
            actions = self.denoise(inputs, PREPARING_STEPS)
            return replace(inputs, chosen=add_noise(actions, self._start(inputs), SMOOTH_TIMESTEP))

    def smooth_actions(self, inputs: PolicyInputs) -> Tensor:
        """Diffusion: the actions that follow from one pass over half noisy ones, not clipped."""
        if not self.diffusion:
            return self(inputs)
        noisy = self.choices(inputs)
        noise = self.predict_noise(inputs, self.context(inputs), noisy, SMOOTH_TIMESTEP)
        return remove_noise(noisy, noise, SMOOTH_TIMESTEP)

    def denoise(self, inputs: PolicyInputs, num_steps: int, start: Tensor | None = None) -> Tensor:
        """Normalised actions [B, K, A] from noise of that shape.

        None draws `start_noise` of seed 0.
        """
        context = self.context(inputs)
        noise = self._start(inputs) if start is None else start
        return denoise(
            lambda noisy, t: self.predict_noise(inputs, context, noisy, t), noise, num_steps
        )

    def predict_noise(
        self, inputs: PolicyInputs, context: tuple[Tensor, Tensor], noisy: Tensor, timestep: int
    ) -> Tensor:
        """The noise [B, K, A] in `noisy` [B, K, A] at `timestep`; context: of the same inputs."""
        batch = len(noisy)
        width = self.config.text.hidden_size
        slots = self.noisy_action_projector(noisy.reshape(batch, -1, 1))
        time = time_token(torch.full((batch,), float(timestep), device=noisy.device), width).to(
            slots.dtype
        )
        return self.action_head(self._decode(inputs, context, slots, time[:, None])[0])

    def action_hidden_states(self, inputs: PolicyInputs) -> Tensor:
        """Hidden states [B, K * A, D] that the head reads: the last prompt token's, then all
        placeholders' but one.
        """
        return self.decode(inputs)[0]

    def decode(
        self, inputs: PolicyInputs, context: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Hidden states of the action slots [B, K * A, D] and of the image patches [B, images *
        patches, D].

        context: of the same inputs, where it is at hand.
        """
        context = self.context(inputs) if context is None else context
        prompt = context[1]
        placeholders = prompt.new_zeros(
            len(prompt), self.config.decoding.num_placeholders, prompt.shape[-1]
        )
        return self._decode(inputs, context, placeholders)

    def context(self, inputs: PolicyInputs) -> tuple[Tensor, Tensor]:
        """Projected patches [B, images * patches, D], and embeddings of prompt and stop token [B, L
        + 1, D].
        """
        stop = torch.full_like(inputs.input_ids[:, :1], STOP_TOKEN_ID)
        words = self.embed(torch.cat([inputs.input_ids, stop], dim=1))
        language = None
        if self.config.decoding.film:
            language = words.mean(1)
            if inputs.attention_mask is not None:
                weights = F.pad(inputs.attention_mask.bool(), (0, 1), value=True)[..., None].to(
                    words.dtype
                )
                language = (words * weights).sum(1) / weights.sum(1)
        return self.projector(self.vision_backbone(inputs.pixel_values, language)), words

    def _decode(
        self,
        inputs: PolicyInputs,
        context: tuple[Tensor, Tensor],
        slots: Tensor,
        time: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `decode`. Sequence: [BOS][patches][proprio][time][prompt rest][K * A slots][stop];
        all see all.
        """
        patches, words = context
        inserted = [patches]
        if self.config.decoding.proprio_dim:
            inserted.append(self.proprio_projector(inputs.proprio)[:, None])
        if time is not None:
            inserted.append(time)
        sequence = torch.cat([words[:, :1], *inserted, words[:, 1:-1], slots, words[:, -1:]], dim=1)

        batch = len(slots)
        num_slots = slots.shape[1]
        num_patches = patches.shape[1]
        num_inserted = sum(tokens.shape[1] for tokens in inserted)
        first_slot = num_inserted + words.shape[1] - 2
        if inputs.attention_mask is None:
            positions = torch.arange(sequence.shape[1], device=sequence.device)[None]
            hidden = self.language_model.model(sequence, positions)
            return hidden[:, first_slot : first_slot + num_slots], hidden[:, 1 : 1 + num_patches]

        prompt_mask = inputs.attention_mask.bool()
        seen = prompt_mask.new_ones
        key_mask = torch.cat(
            [
                prompt_mask[:, :1],
                seen(batch, num_inserted),
                prompt_mask[:, 1:],
                seen(batch, num_slots + 1),
            ],
            dim=1,
        )
        # padding takes no position, so a row reads as if unpadded
        positions = (key_mask.cumsum(1) - 1).clamp_min(0)
        hidden = self.language_model.model(sequence, positions, Sight(key_mask[:, None, None, :]))
        places = torch.arange(first_slot, first_slot + num_slots, device=sequence.device).repeat(
            batch, 1
        )
        places[:, 0] = num_inserted + prompt_mask.sum(1) - 1  # the last token that is not padding
        gathered = hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[-1]))
        return gathered, hidden[:, 1 : 1 + num_patches]

    def _start(self, inputs: PolicyInputs) -> Tensor:
        decoding = self.config.decoding
        noise = torch.from_numpy(start_noise((1, decoding.chunk_length, decoding.action_dim), 0))
        return noise.to(inputs.pixel_values).expand(len(inputs.input_ids), -1, -1)
