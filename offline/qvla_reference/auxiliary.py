"""Training-only heads that teach the policy to see its object and to follow the instruction.

A checkpoint has none of them. What a policy must see is small in the picture and reaches the action
loss only through many layers. It learns from few images because heads ask it for the positions of
object and container, which the simulator knows.

That did not teach it the instruction: where the scene gives the object away, the sentence is
learned last. So more heads take the way from word to object apart. One asks the action slots which
sentence was given. One gets the sentence as a number and asks which patch of the agentview shows
its object, before any word has met the patches. A third asks for that patch halfway through the
decoder, so that layers are left in which the action slots can attend to it: asked for at the end,
the patches knew it and the actions did not.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor, nn
from torch.nn import functional as F

UNIT_M = 0.1  # one unit of the heads' outputs
NUM_TARGETS = 2  # the object, the container
MAX_SENTENCES = 128
SENTENCE_WIDTH = 64
SENTENCE_WEIGHT = 0.1  # cross entropies count in other units than the position errors
PATCH_WEIGHT = 0.2


class PositionHeads(nn.Module):
    """Estimates positions relative to the hand, [B, 2, 3] in UNIT_M, in two ways.

    One estimate is from the action slots, the other from the image patches.
    """

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


def position_loss(heads: nn.Module, slots: Tensor, patches: Tensor, positions_m: Tensor) -> Tensor:
    """Computes the mean smooth-L1 error of both estimates.

    heads: PositionHeads, positions_m: [B, 2, 3].
    """
    target = positions_m / UNIT_M
    return torch.stack(
        [F.smooth_l1_loss(guess, target, beta=0.2) for guess in heads(slots, patches)]
    ).mean()


class GroundingHeads(nn.Module):
    """Finds the sentence in the action slots, and the object of the sentence among the patches.

    Each sentence of the training set has a vector.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.sentences = nn.Embedding(MAX_SENTENCES, SENTENCE_WIDTH)
        self.told = nn.Linear(hidden_size, SENTENCE_WIDTH)  # the name is in saved training states
        self.seen = nn.Linear(hidden_size, SENTENCE_WIDTH)
        self.marked = nn.Linear(hidden_size, 1)
        nn.init.normal_(self.sentences.weight, std=SENTENCE_WIDTH**-0.5)

    def forward(
        self, slots: Tensor, unread_patches: Tensor, halfway_patches: Tensor, sentence: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns scores, not normalised, of each sentence and of each patch.

        Of sentences: [B, MAX_SENTENCES]; of patches, before reading and halfway: [B, N] each.
        slots: [B, n, D], from the decoder; unread_patches: [B, N, D], as they enter it;
        halfway_patches: [B, N, D], in its middle; sentence: int64 [B].
        """
        sentences = self.told(slots.mean(dim=1)) @ self.sentences.weight.T
        unread = (self.seen(unread_patches) @ self.sentences(sentence)[..., None])[..., 0]
        return (
            sentences,
            unread,
            self.marked(F.rms_norm(halfway_patches, halfway_patches.shape[-1:]))[..., 0],
        )


def grounding_loss(
    scores: tuple[Tensor, Tensor, Tensor], sentence: Tensor, patch_shares: Tensor
) -> Tensor:
    """Sums the cross entropies of the sentence and of the patch that shows its object.

    The patch counts twice: before reading and halfway.
    scores: of GroundingHeads; patch_shares: [B, n], of the agentview, whose n patches are the
    first.
    """
    of_sentences, *of_patches = scores
    patches = sum(
        F.cross_entropy(each[:, : patch_shares.shape[1]], patch_shares) for each in of_patches
    )
    return SENTENCE_WEIGHT * F.cross_entropy(of_sentences, sentence) + PATCH_WEIGHT * patches


class LatestOutput:
    """Keeps the last output of `layer` in this thread; several threads may run it at once."""

    def __init__(self, layer: nn.Module) -> None:
        self._of_thread = threading.local()
        layer.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        self._of_thread.value = output

    def take(self) -> Tensor:
        """Returns the output and forgets it."""
        value = self._of_thread.value
        self._of_thread.value = None
        return value
