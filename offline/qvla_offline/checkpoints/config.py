"""config.json of a checkpoint as dataclasses, with the defaults that its readers apply.

Sources: `configuration_prismatic.py` of OpenVLA (defaults) and the class defaults of transformers'
LlamaConfig, from which a real `text_config` stores only the differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from qvla_offline.checkpoints.backbones import BACKBONES, VisionConfig, timm_vit
from qvla_offline.checkpoints.known_keys import CONFIG, ROPE, TEXT_CONFIG, KnownKeys
from qvla_ros.bundle import Normalization
from qvla_ros.diffusion import NUM_TRAIN_STEPS
from qvla_ros.errors import QvlaError
from qvla_ros.strict_json import parse

_FILE = "config.json"
_FIX = "compare with config.json as the checkpoint was published, or download it again"


# Above all that is published; a number like it would be memory or time without end.
_LARGEST_LAYERS = 1024
_LARGEST_SIZE = 1 << 24
# what a bundle may hold (qvla_ros.specifications), with the least that makes sense
_LARGEST_IMAGE = 8192
_DECODING = {
    "chunk_length": (1, 1024),
    "action_dim": (1, 1024),
    "proprio_dim": (0, 1024),
    "num_images": (1, 64),
    "pool_width": (1, 1 << 16),
    "diffusion_steps": (1, NUM_TRAIN_STEPS),
}


def _require_positive(key: str, value: float) -> None:
    if not value > 0:
        raise QvlaError(f"{_FILE}: {key}", value, "a number above 0", _FIX)
    layers = key.endswith(("num_hidden_layers", "depth"))
    image = key.endswith(("image_size", "resize_size"))
    largest = _LARGEST_LAYERS if layers else _LARGEST_IMAGE if image else _LARGEST_SIZE
    if value > largest:
        raise QvlaError(f"{_FILE}: {key}", value, f"at most {largest}", _FIX)


def _require_heads(key: str, width: int, heads: int, even: bool = False) -> None:
    """Raises QvlaError unless `width` is that of so many heads; even: of an even width each."""
    if width % heads or (even and width // heads % 2):
        kind = "an even number" if even else "a whole number"
        expected = f"heads of {kind} of channels"
        raise QvlaError(f"{_FILE}: {key}", f"width {width}, {heads} heads", expected, _FIX)


@dataclass(frozen=True)
class TextConfig:
    """The sizes of the Llama decoder; the defaults are transformers' own.

    Note rms_norm_eps 1e-6, not Llama-2's 1e-5. tie_word_embeddings: the vocabulary head is the
    embedding.
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
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name not in ("pad_token_id", "tie_word_embeddings"):
                _require_positive(f"text_config.{field.name}", getattr(self, field.name))
        _require_heads("text_config", self.hidden_size, self.num_attention_heads, even=True)
        if self.num_attention_heads % self.num_key_value_heads:
            expected = f"a divisor of {self.num_attention_heads}, the attention heads"
            key = f"{_FILE}: text_config.num_key_value_heads"
            raise QvlaError(key, self.num_key_value_heads, expected, _FIX)

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
        for name, (least, most) in _DECODING.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise QvlaError(f"{_FILE}: decoding.{name}", value, f"{least} to {most}", _FIX)

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
            _require_heads(vit.timm_id, vit.embed_dim, vit.num_heads)
            if not 0 <= vit.reg_tokens <= _LARGEST_LAYERS:
                expected = f"0 to {_LARGEST_LAYERS}"
                raise QvlaError(
                    f"{_FILE}: {vit.timm_id}: reg_tokens", vit.reg_tokens, expected, _FIX
                )
            if vit.patch_size > vit.image_size:
                expected = f"at most {vit.image_size}, the image's"
                raise QvlaError(
                    f"{_FILE}: {vit.timm_id}: patch_size", vit.patch_size, expected, _FIX
                )
        if len({(vit.image_size, vit.num_patches) for vit in self.vision}) > 1:
            found = ", ".join(f"{vit.image_size} / {vit.patch_size}" for vit in self.vision)
            expected = "one size of image, and as many patches, for all ViTs"
            raise QvlaError(f"{_FILE}: image / patch size", found, expected, _FIX)

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
    data = _without_nulls(data)
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
    CONFIG.check(data, f"{_FILE}: ")
    TEXT_CONFIG.check(text_data, f"{_FILE}: text_config.")
    vision = _parse_vision(backbone_id, data)
    _require_fused(data, len(vision))
    return PolicyConfig(
        vision_backbone_id=backbone_id,
        image_resize_strategy=parse(
            Literal["resize-naive", "resize-crop", "letterbox"],
            data.get("image_resize_strategy", "letterbox"),
            f"{_FILE}: image_resize_strategy",
            _FIX,
        ),
        vision=vision,
        text=_parse_text(text_data),
        decoding=_build(DecodingConfig, {**(implied or {}), **stated_decoding(data)}),
        n_action_bins=parse(int, data.get("n_action_bins", 256), f"{_FILE}: n_action_bins", _FIX),
        pad_to_multiple_of=parse(
            int, data.get("pad_to_multiple_of", 64), f"{_FILE}: pad_to_multiple_of", _FIX
        ),
        resize_size=parse(
            int, data.get("resize_size", PolicyConfig.resize_size), f"{_FILE}: resize_size", _FIX
        ),
    )


def _parse_text(text: Mapping[str, Any]) -> TextConfig:
    """The decoder's sizes. `rope_parameters` is how transformers 5 writes rope_theta."""
    stated = _without_nulls(text)
    for key in ("rope_parameters", "rope_scaling"):
        rope = _object(stated.get(key, {}), f"text_config.{key}")
        ROPE.check(rope, f"{_FILE}: text_config.{key}.")
        theta = rope.get("rope_theta")
        if theta is not None and stated.get("rope_theta", theta) != theta:
            found = f"{stated['rope_theta']}, and {theta} in {key}"
            fix = "keep the one that it was trained with"
            raise QvlaError(f"{_FILE}: text_config.rope_theta", found, "one value", fix)
        if theta is not None:
            stated = {**stated, "rope_theta": theta}
    heads = stated.get("num_attention_heads", TextConfig.num_attention_heads)
    config: TextConfig = _build(TextConfig, {"num_key_value_heads": heads, **stated})
    if stated.get("head_dim", config.head_dim) != config.head_dim:
        expected = f"{config.head_dim}, hidden_size / num_attention_heads"
        raise QvlaError(f"{_FILE}: text_config.head_dim", stated["head_dim"], expected, _FIX)
    return config


def _require_fused(data: Mapping[str, Any], num_vits: int) -> None:
    """Raises QvlaError if the file says otherwise than its backbone how many ViTs there are."""
    stated = data.get("use_fused_vision_backbone")
    if stated is not None and stated is not (num_vits > 1):
        expected = f"{str(num_vits > 1).lower()}, as its vision backbone has {num_vits}"
        raise QvlaError(f"{_FILE}: use_fused_vision_backbone", stated, expected, _FIX)


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
    """The ViTs. As upstream, `timm_model_ids` and `image_sizes` of the file win over the table.

    `vision_configs` spells them out, in small checkpoints of this project; the others must agree.
    """
    if backbone_id not in BACKBONES:
        fix = "use a checkpoint with such a backbone"
        raise QvlaError(
            f"{_FILE}: vision_backbone_id", backbone_id, f"one of {', '.join(BACKBONES)}", fix
        )
    spelled = data.get("vision_configs")
    if spelled is not None and (not isinstance(spelled, list) or not spelled):
        raise QvlaError(f"{_FILE}: vision_configs", type(spelled).__name__, "a list of ViTs", _FIX)
    written = [_build_vit(_object(entry, "vision_configs")) for entry in spelled or []]
    table = written or BACKBONES[backbone_id]
    if len(table) != len(BACKBONES[backbone_id]):
        found = f"{len(written)} ViTs for {backbone_id}"
        expected = f"{len(BACKBONES[backbone_id])}, as that has"
        raise QvlaError(f"{_FILE}: vision_configs", found, expected, _FIX)
    ids = _per_vit(data, "timm_model_ids", str, [vit.timm_id for vit in table])
    sizes = _per_vit(data, "image_sizes", int, [vit.image_size for vit in table])
    layers = _per_vit(data, "timm_override_act_layers", str | None, [None] * len(table))
    changed = [layer for layer in layers if layer is not None]
    if changed:
        raise QvlaError(
            f"{_FILE}: timm_override_act_layers",
            changed[0],
            "none: GELU, as DINOv2 and SigLIP have",
            _FIX,
        )
    for vit, timm_id, size in zip(written, ids, sizes, strict=False):
        if (vit.timm_id, vit.image_size) != (timm_id, size):
            found = f"{timm_id} of {size} pixels, and {vit.timm_id} of {vit.image_size}"
            expected = "the same ViTs in timm_model_ids, image_sizes and vision_configs"
            raise QvlaError(f"{_FILE}: vision_configs", found, expected, _FIX)
    return tuple(written) or tuple(
        _timm_vit(timm_id, size) for timm_id, size in zip(ids, sizes, strict=True)
    )


def _per_vit(data: Mapping[str, Any], key: str, kind: Any, default: list[Any]) -> tuple[Any, ...]:
    """An entry of config.json with one value per ViT."""
    found: tuple[Any, ...] = parse(
        tuple[kind, ...], data.get(key, default), f"{_FILE}: {key}", _FIX
    )
    if len(found) != len(default):
        expected = f"{len(default)}, one per ViT"
        raise QvlaError(f"{_FILE}: {key}", f"{len(found)} entries", expected, _FIX)
    return found


def _build_vit(entry: Mapping[str, Any]) -> VisionConfig:
    known = KnownKeys(frozenset(field.name for field in fields(VisionConfig)))
    known.check(entry, f"{_FILE}: vision_configs.")
    vit: VisionConfig = _build(VisionConfig, entry)
    return vit


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
