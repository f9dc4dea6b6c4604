"""Finds the vision transformers that config.json names.

They are named by OpenVLA's ids (which pair of ViTs) and by timm's (which ViT).

Sources: the tables in `configuration_prismatic.py` of OpenVLA, the models that
`vision_transformer.py` of timm defines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# width, blocks, heads, width of the MLP
_SIZES = {
    "tiny": (192, 12, 3, 768),
    "small": (384, 12, 6, 1536),
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
}
# e.g. vit_large_patch14_reg4_dinov2.lvd142m, vit_so400m_patch14_siglip_384,
# vit_large_patch16_224.augreg_in21k_ft_in1k
_TIMM_ID = re.compile(
    rf"vit_(?P<size>{'|'.join(_SIZES)})_patch(?P<patch>\d+)_"
    r"((?P<reg>reg4_)?(?P<dino>dinov2)|(?P<siglip>siglip_)?\d+)(\..+)?"
)


@dataclass(frozen=True)
class VisionConfig:
    """One ViT, as timm names its parts. Lengths are in pixels, widths in channels.

    class_position: the class token has a place in the position embedding, before the patches.
    """

    timm_id: str
    image_size: int
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_hidden: int
    class_token: bool
    reg_tokens: int
    layer_scale: bool
    attention_pool: bool
    layer_norm_eps: float = 1e-6
    class_position: bool = False

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    @property
    def num_prefix_tokens(self) -> int:
        return int(self.class_token) + self.reg_tokens


def timm_vit(timm_id: str, image_size: int) -> VisionConfig | None:
    """The ViT that timm makes for this id, at any image size.

    None for an id of another kind (CLIP's among them).
    """
    name = _TIMM_ID.fullmatch(timm_id)
    if name is None:
        return None
    width, depth, heads, mlp_hidden = _SIZES[name["size"]]
    return VisionConfig(
        timm_id,
        image_size,
        patch_size=int(name["patch"]),
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_hidden=mlp_hidden,
        class_token=name["siglip"] is None,
        reg_tokens=4 if name["reg"] else 0,
        layer_scale=name["dino"] is not None,
        attention_pool=name["siglip"] is not None,
        class_position=name["siglip"] is None and name["reg"] is None,
    )


_DINO = "vit_large_patch14_reg4_dinov2.lvd142m"
_IMAGENET = "vit_large_patch16_224.augreg_in21k_ft_in1k"
_SIGLIP = "vit_so400m_patch14_siglip_224"
_SIGLIP_384 = "vit_so400m_patch14_siglip_384"
_TABLE: dict[str, tuple[int, tuple[str, ...]]] = {
    "dinosiglip-vit-so-224px": (224, (_DINO, _SIGLIP)),
    "dinosiglip-vit-so-384px": (384, (_DINO, _SIGLIP_384)),
    "siglip-vit-so400m": (224, (_SIGLIP,)),
    "siglip-vit-so400m-384px": (384, (_SIGLIP_384,)),
    "dinov2-vit-l": (224, (_DINO,)),
    "in1k-vit-l": (224, (_IMAGENET,)),
}
BACKBONES: dict[str, tuple[VisionConfig, ...]] = {
    name: tuple(vit for timm_id in timm_ids if (vit := timm_vit(timm_id, size)))
    for name, (size, timm_ids) in _TABLE.items()
}
