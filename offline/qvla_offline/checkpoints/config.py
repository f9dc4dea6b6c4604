"""config.json of a checkpoint as dataclasses, with the defaults that its readers apply.

Sources: `configuration_prismatic.py` of OpenVLA (defaults) and the class defaults of transformers'
LlamaConfig, from which a real `text_config` stores only the differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from qvla_offline.checkpoints.backbones import BACKBONES, VisionConfig, timm_vit
from qvla_ros.bundle import Normalization
from qvla_ros.diffusion import NUM_TRAIN_STEPS
from qvla_ros.errors import QvlaError
from qvla_ros.strict_json import parse

_FILE = "config.json"
_FIX = "compare with config.json as the checkpoint was published, or download it again"


def _require_positive(key: str, value: float) -> None:
    if not value > 0:
        raise QvlaError(f"{_FILE}: {key}", value, "a number above 0", _FIX)


@dataclass(frozen=True)
class TextConfig:
    """The sizes of the Llama decoder; the defaults are transformers' own.

    Note rms_norm_eps 1e-6, not Llama-2's 1e-5.
    """

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 32
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    pad_token_id: int = 32000

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "pad_token_id":
                _require_positive(f"text_config.{field.name}", getattr(self, field.name))

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class DecodingConfig:
    """The policy's inputs besides the prompt, and how actions come out of its network.

    kind: how actions are decoded; it belongs to one family (see checkpoints.family). The defaults
    are those of OpenVLA-OFT on LIBERO; released checkpoints do not store them. proprio_dim: 0 where
    the policy reads no proprioception. film: the prompt modulates the ViTs. diffusion_steps:
    denoising steps at run time, at most the 50 of training. pool_width: of UniVLA's action decoder.
    """

    kind: str = "l1_chunk"
    chunk_length: int = 8
    action_dim: int = 7
    proprio_dim: int = 8
    num_images: int = 2
    normalization: Normalization = "q99"
    film: bool = False
    diffusion_steps: int = NUM_TRAIN_STEPS
    pool_width: int = 512

    def __post_init__(self) -> None:
        if not 1 <= self.diffusion_steps <= NUM_TRAIN_STEPS:
            expected = f"1 to {NUM_TRAIN_STEPS}, the steps of training"
            raise QvlaError(
                f"{_FILE}: decoding.diffusion_steps", self.diffusion_steps, expected, _FIX
            )

    @property
    def num_placeholders(self) -> int:
        return self.chunk_length * self.action_dim


@dataclass(frozen=True)
class PolicyConfig:
    """The sizes of a whole policy: ViTs, decoder and action decoding.

    The ViTs are in the order of their normalised image channels.

    resize_size: side that camera images are brought to before the image processor makes the ViTs'
    size of them. Released checkpoints do not store it: the released evaluations have it as a
    constant.
    """

    vision_backbone_id: str
    image_resize_strategy: str
    vision: tuple[VisionConfig, ...]
    text: TextConfig
    decoding: DecodingConfig
    n_action_bins: int = 256
    pad_to_multiple_of: int = 64
    resize_size: int = 224

    def __post_init__(self) -> None:
        _require_positive("resize_size", self.resize_size)
        if self.n_action_bins < 2:
            raise QvlaError(f"{_FILE}: n_action_bins", self.n_action_bins, "2 or more", _FIX)
        for vit in self.vision:
            for name in (
                "image_size",
                "patch_size",
                "embed_dim",
                "depth",
                "num_heads",
                "mlp_hidden",
            ):
                _require_positive(f"{vit.timm_id}: {name}", getattr(vit, name))

    @property
    def input_size(self) -> int:
        """Side in pixels of the images that the network takes."""
        return self.vision[0].image_size

    @property
    def vision_width(self) -> int:
        """Channels of one patch after the ViTs are concatenated."""
        return sum(vit.embed_dim for vit in self.vision)

    @property
    def num_patches(self) -> int:
        """Patches of one image."""
        return self.vision[0].num_patches

    @property
    def action_vocabulary(self) -> int:
        """One past the last action token: the embedding has `pad_to_multiple_of` rows more."""
        return self.text.vocab_size - self.pad_to_multiple_of


def parse_config(data: Mapping[str, Any], implied: Mapping[str, Any] | None = None) -> PolicyConfig:
    """Reads the JSON object of a config.json. QvlaError for what this project cannot run.

    implied: fields of DecodingConfig that follow from the files beside it; an entry under
    `decoding` in config.json wins.
    """
    backbone_id = parse(
        str,
        data.get("vision_backbone_id", "siglip-vit-so400m"),
        f"{_FILE}: vision_backbone_id",
        _FIX,
    )
    text_data = _object(data.get("text_config", {}), "text_config")
    model_type = text_data.get("model_type", "llama")
    if model_type != "llama":
        raise QvlaError(
            "config.json: text_config.model_type",
            model_type,
            "llama",
            "use a Llama-based checkpoint",
        )
    for key, only in (("hidden_act", "silu"), ("rope_scaling", None), ("attention_bias", False)):
        if text_data.get(key, only) != only:
            raise QvlaError(
                f"{_FILE}: text_config.{key}", text_data[key], f"{only}, as Llama-2 has", _FIX
            )
    heads = text_data.get("num_attention_heads") or TextConfig.num_attention_heads
    return PolicyConfig(
        vision_backbone_id=backbone_id,
        image_resize_strategy=data.get("image_resize_strategy", "letterbox"),
        vision=_parse_vision(backbone_id, data),
        text=_build(TextConfig, {"num_key_value_heads": heads, **_without_nulls(text_data)}),
        decoding=_build(DecodingConfig, {**(implied or {}), **stated_decoding(data)}),
        n_action_bins=parse(int, data.get("n_action_bins", 256), f"{_FILE}: n_action_bins", _FIX),
        pad_to_multiple_of=parse(
            int, data.get("pad_to_multiple_of", 64), f"{_FILE}: pad_to_multiple_of", _FIX
        ),
        resize_size=parse(
            int, data.get("resize_size", PolicyConfig.resize_size), f"{_FILE}: resize_size", _FIX
        ),
    )


def stated_decoding(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of DecodingConfig that config.json states. Released checkpoints state none."""
    key = "oft" if "oft" in data else "decoding"
    stated = _without_nulls(_object(data.get(key, {}), key))
    known = [field.name for field in fields(DecodingConfig)]
    for name in stated:
        if name not in known:
            raise QvlaError(
                f"{_FILE}: {key}.{name}",
                stated[name],
                f"one of {', '.join(known)}",
                "correct the name",
            )
    return stated


def _without_nulls(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """A null is as good as no entry: transformers writes some."""
    return {name: value for name, value in entry.items() if value is not None}


def _parse_vision(backbone_id: str, data: Mapping[str, Any]) -> tuple[VisionConfig, ...]:
    """The ViTs. As upstream, `timm_model_ids` and `image_sizes` of the file win over the table."""
    if backbone_id not in BACKBONES:
        fix = "use a checkpoint with such a backbone"
        raise QvlaError(
            f"{_FILE}: vision_backbone_id", backbone_id, f"one of {', '.join(BACKBONES)}", fix
        )
    if "vision_configs" in data:  # small checkpoints of this project spell their ViTs out
        entries = data["vision_configs"]
        if not isinstance(entries, list) or not entries:
            raise QvlaError(
                f"{_FILE}: vision_configs", type(entries).__name__, "a list of ViTs", _FIX
            )
        return tuple(_build(VisionConfig, _object(entry, "vision_configs")) for entry in entries)
    table = BACKBONES[backbone_id]
    ids = parse(
        tuple[str, ...],
        data.get("timm_model_ids", [vit.timm_id for vit in table]),
        f"{_FILE}: timm_model_ids",
        _FIX,
    )
    sizes = parse(
        tuple[int, ...],
        data.get("image_sizes", [vit.image_size for vit in table]),
        f"{_FILE}: image_sizes",
        _FIX,
    )
    for key, found in (("timm_model_ids", ids), ("image_sizes", sizes)):
        if len(found) != len(table):
            raise QvlaError(
                f"{_FILE}: {key}", f"{len(found)} entries", f"{len(table)}, one per ViT", _FIX
            )
    changed = [layer for layer in data.get("timm_override_act_layers") or [] if layer is not None]
    if changed:
        raise QvlaError(
            f"{_FILE}: timm_override_act_layers",
            changed[0],
            "none: GELU, as DINOv2 and SigLIP have",
            _FIX,
        )
    return tuple(_timm_vit(timm_id, size) for timm_id, size in zip(ids, sizes, strict=True))


def _timm_vit(timm_id: str, image_size: int) -> VisionConfig:
    found = timm_vit(timm_id, image_size)
    if found is None:
        expected = "a plain, DINOv2 or SigLIP ViT, e.g. vit_small_patch14_reg4_dinov2"
        raise QvlaError(
            f"{_FILE}: timm_model_ids", timm_id, expected, "spell the ViTs out under vision_configs"
        )
    return found


def _build(kind: type, entry: Mapping[str, Any]) -> Any:
    """The dataclass from the keys that it knows; QvlaError names one that must not be missing."""
    known = {
        field.name: entry[field.name] for field in fields(kind) if entry.get(field.name) is not None
    }
    return parse(kind, known, f"{_FILE}: {kind.__name__}", _FIX)


def _object(value: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise QvlaError(f"{_FILE}: {key}", type(value).__name__, "an object", _FIX)
    return value


def config_json(config: PolicyConfig, torch_dtype: str = "float16") -> dict[str, Any]:
    """Returns the JSON object that `parse_config` reads back to an equal config.

    It has the keys of a real config.json around it.
    """
    fused = len(config.vision) > 1
    return {
        "architectures": ["OpenVLAForActionPrediction"],
        "model_type": "openvla",
        "arch_specifier": "no-align+fused-gelu-mlp" if fused else "no-align+gelu-mlp",
        "vision_backbone_id": config.vision_backbone_id,
        "llm_backbone_id": "llama2-7b-pure",
        "use_fused_vision_backbone": fused,
        "image_resize_strategy": config.image_resize_strategy,
        "image_sizes": [vit.image_size for vit in config.vision],
        "resize_size": config.resize_size,
        "timm_model_ids": [vit.timm_id for vit in config.vision],
        "timm_override_act_layers": [None] * len(config.vision),
        "n_action_bins": config.n_action_bins,
        "pad_to_multiple_of": config.pad_to_multiple_of,
        "pad_token_id": config.text.pad_token_id,
        "text_config": {"model_type": "llama", **asdict(config.text)},
        "vision_configs": [asdict(vit) for vit in config.vision],
        "decoding": asdict(config.decoding),
        "output_projector_states": False,
        "torch_dtype": torch_dtype,
    }
