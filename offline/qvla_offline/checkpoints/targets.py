"""The layers that QVLA quantizes, by the released rule, and those that no policy executes."""

from __future__ import annotations

from torch import nn

QuantizableLayer = nn.Linear | nn.Conv2d


def quantization_targets(model: nn.Module) -> dict[str, QuantizableLayer]:
    """The released QVLA rule, in the order of named_modules.

    Linear and Conv2d layers whose name begins with `language_model.` or `vision_backbone.`, less
    the vocabulary head. The projector, the proprio projector and the action head stay in full
    precision. For openvla-7b: 435 layers.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and name.startswith(("language_model.", "vision_backbone."))
        and not name.startswith("language_model.lm_head")
        and "action_head" not in name
    }


def unexecuted_targets(model: nn.Module) -> set[str]:
    """Targets that no forward pass reaches: each ViT's last block, and SigLIP's pooling head."""
    unused = set()
    for vit_name, vit in model.named_modules():
        if not hasattr(vit, "patch_embed"):
            continue
        prefixes = (f"{vit_name}.blocks.{len(vit.blocks) - 1}.", f"{vit_name}.attn_pool.")
        unused |= {name for name in quantization_targets(model) if name.startswith(prefixes)}
    return unused
