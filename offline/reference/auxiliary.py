"""Training-only heads that make the policy look and listen; a checkpoint has none.

What a policy must see is small in the picture and reaches the action loss only through many layers. Telling the decoder
the positions of object and container directly (the simulator knows them) is what makes it learn from few images. That
did not make it listen: where the scene gives the object away, the sentence is read last. So two more heads take the
way from word to object apart: which sentence was said (from the action slots), and, given the sentence as a number,
which patch of the agentview shows its object (before any word has met the patches). A third asks for that patch after
reading.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

UNIT_M = 0.1  # one unit of the heads' outputs
NUM_TARGETS = 2  # the object, the container
MAX_SENTENCES = 128
SENTENCE_WIDTH = 64
TOLD_WEIGHT = 0.1  # cross entropies count in other units than the position errors
PATCH_WEIGHT = 0.2


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

    def object_scores(self, patches: Tensor) -> Tensor:
        """How much each patch is taken to show the object, [B, N], unnormalised."""
        return self.attention(patches)[..., 0]


def position_loss(heads: PositionHeads, slots: Tensor, patches: Tensor, positions_m: Tensor) -> Tensor:
    """Mean smooth-L1 error of both estimates; positions_m: [B, 2, 3]."""
    target = positions_m / UNIT_M
    return torch.stack([F.smooth_l1_loss(guess, target, beta=0.2) for guess in heads(slots, patches)]).mean()


class GroundingHeads(nn.Module):
    """A vector for each sentence of the training set, told from the action slots and looked for among the patches."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.sentences = nn.Embedding(MAX_SENTENCES, SENTENCE_WIDTH)
        self.told = nn.Linear(hidden_size, SENTENCE_WIDTH)
        self.seen = nn.Linear(hidden_size, SENTENCE_WIDTH)
        nn.init.normal_(self.sentences.weight, std=SENTENCE_WIDTH**-0.5)

    def forward(self, slots: Tensor, unread_patches: Tensor, sentence: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of each sentence [B, MAX_SENTENCES] and of each patch [B, N], unnormalised.

        slots: [B, n, D], from the decoder; unread_patches: [B, N, D], as they enter it; sentence: int64 [B].
        """
        told = self.told(slots.mean(dim=1)) @ self.sentences.weight.T
        return told, (self.seen(unread_patches) @ self.sentences(sentence)[..., None])[..., 0]


def grounding_loss(
    scores: tuple[Tensor, Tensor], read_scores: Tensor, sentence: Tensor, patch_shares: Tensor
) -> Tensor:
    """Cross entropies: of the sentence, and of the agentview patch that shows its object, before and after reading.

    scores: of GroundingHeads; read_scores: [B, N], PositionHeads.object_scores; patch_shares: [B, n], of the agentview,
    whose n patches are the first.
    """
    told, unread_scores = scores
    patches = patch_shares.shape[1]
    unread, read = (F.cross_entropy(each[:, :patches], patch_shares) for each in (unread_scores, read_scores))
    return TOLD_WEIGHT * F.cross_entropy(told, sentence) + PATCH_WEIGHT * (unread + read)
