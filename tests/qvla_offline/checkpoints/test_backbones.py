"""The ViTs that config.json means are OpenVLA's ids and timm's.

Values in config.json itself win over the table.
"""

from __future__ import annotations

from typing import Any

import pytest
from torch import device

from qvla_offline.checkpoints.backbones import BACKBONES, timm_vit
from qvla_offline.checkpoints.config import parse_config
from qvla_offline.checkpoints.vit import VisionTransformer
from qvla_ros.errors import QvlaError

DINOSIGLIP = "dinosiglip-vit-so-224px"


def shapes(timm_id: str, image_size: int) -> dict[str, tuple[int, ...]]:
    vit = timm_vit(timm_id, image_size)
    assert vit is not None
    with device("meta"):
        return {
            name: tuple(tensor.shape)
            for name, tensor in VisionTransformer(vit).state_dict().items()
        }


def test_the_vits_of_openvla_have_the_published_shapes() -> None:
    dino, siglip = BACKBONES[DINOSIGLIP]
    assert (dino.depth, dino.num_heads, dino.num_prefix_tokens) == (24, 16, 5)
    assert (siglip.depth, siglip.num_heads, siglip.num_prefix_tokens) == (27, 16, 0)
    found = shapes(dino.timm_id, 224)
    assert found["pos_embed"] == (1, 256, 1024)
    assert found["reg_token"] == (1, 4, 1024)
    assert found["blocks.23.mlp.fc1.weight"] == (4096, 1024)
    assert found["blocks.0.ls1.scale_factor"] == (1024,)
    found = shapes(siglip.timm_id, 224)
    assert found["pos_embed"] == (1, 256, 1152)
    assert found["blocks.26.mlp.fc1.weight"] == (4304, 1152)
    assert found["attn_pool.kv.weight"] == (2304, 1152)
    assert not {"cls_token", "reg_token", "blocks.0.ls1.scale_factor"} & set(found)
    assert BACKBONES["dinosiglip-vit-so-384px"][1].num_patches == 27**2


@pytest.mark.parametrize(
    ("timm_id", "image_size", "positions", "has"),
    [
        ("vit_large_patch16_224.augreg_in21k_ft_in1k", 224, 197, {"cls_token"}),
        ("vit_small_patch14_dinov2.lvd142m", 112, 65, {"cls_token", "blocks.0.ls1.scale_factor"}),
        (
            "vit_base_patch14_reg4_dinov2",
            112,
            64,
            {"cls_token", "reg_token", "blocks.0.ls1.scale_factor"},
        ),
        ("vit_base_patch16_siglip_256", 256, 256, {"attn_pool.latent"}),
    ],
)
def test_the_name_of_a_timm_vit_tells_its_parts(
    timm_id: str, image_size: int, positions: int, has: set[str]
) -> None:
    found = shapes(timm_id, image_size)
    parts = {"cls_token", "reg_token", "blocks.0.ls1.scale_factor", "attn_pool.latent"}
    assert found["pos_embed"][1] == positions
    assert parts & set(found) == has


def test_vits_and_sizes_in_config_json_win_over_the_table() -> None:
    ids = ["vit_small_patch14_reg4_dinov2.lvd142m", "vit_small_patch14_dinov2.lvd142m"]
    data = {"vision_backbone_id": DINOSIGLIP, "timm_model_ids": ids, "image_sizes": [84, 84]}
    vision = parse_config(data).vision
    assert [vit.timm_id for vit in vision] == ids
    assert [vit.num_patches for vit in vision] == [36, 36]
    assert parse_config({"vision_backbone_id": DINOSIGLIP}).vision == BACKBONES[DINOSIGLIP]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"vision_backbone_id": "dinosiglip-vit-xl"}, "vision_backbone_id"),
        ({"vision_backbone_id": "dinosiglip-vit-xl", "vision_configs": []}, "vision_backbone_id"),
        ({"vision_backbone_id": "clip-vit-l"}, "vision_backbone_id"),
        ({"timm_model_ids": ["vit_small_patch14_dinov2"]}, "timm_model_ids"),
        ({"timm_model_ids": ["vit_large_patch14_clip_224.openai"] * 2}, "timm_model_ids"),
        ({"timm_model_ids": ["resnet50"] * 2}, "timm_model_ids"),
        ({"timm_model_ids": 3}, "timm_model_ids"),
        ({"image_sizes": [224]}, "image_sizes"),
        ({"timm_override_act_layers": [None, "quick_gelu"]}, "timm_override_act_layers"),
        ({"text_config": {"hidden_act": "gelu"}}, "text_config.hidden_act"),
        (
            {"text_config": {"rope_scaling": {"type": "linear", "factor": 2}}},
            "text_config.rope_scaling",
        ),
        ({"text_config": {"attention_bias": True}}, "text_config.attention_bias"),
    ],
)
def test_what_this_project_cannot_run_is_refused_by_key(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(QvlaError) as caught:
        parse_config({"vision_backbone_id": DINOSIGLIP, **changes})
    assert key in caught.value.key
    assert caught.value.fix
