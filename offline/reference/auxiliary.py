"""Training-only heads: where are the object and its container? They make the policy look; a checkpoint has none.

What a policy must see is small in the picture and reaches the action loss only through many layers. Telling the decoder
the two positions directly (the simulator knows them) is what makes it learn from few images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

UNIT_M = 0.1  # one unit of the heads' outputs
NUM_TARGETS = 2  # the object, the container


class PositionHeads(nn.Module):
    """Positions relative to the hand, [B, 2, 3] in UNIT_M, twice: from the action slots and from the image patches."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.from_slots = nn.Linear(hidden_size, NUM_TARGETS * 3)
        self.attention = nn.Linear(hidden_size, NUM_TARGETS)
        self.from_patches = nn.Linear(hidden_size, NUM_TARGETS * 3)

    def forward(self, slots: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        batch = len(slots)
        attention = self.attention(patches).softmax(dim=1)  # [B, N, 2]
        votes = self.from_patches(patches).view(batch, -1, NUM_TARGETS, 3)
        seen = (attention[..., None] * votes).sum(dim=1)
        return self.from_slots(slots.mean(dim=1)).view(batch, NUM_TARGETS, 3), seen


def position_loss(heads: PositionHeads, slots: Tensor, patches: Tensor, positions_m: Tensor) -> Tensor:
    """Mean smooth-L1 error of both estimates; positions_m: [B, 2, 3]."""
    target = positions_m / UNIT_M
    return torch.stack([F.smooth_l1_loss(guess, target, beta=0.2) for guess in heads(slots, patches)]).mean()
