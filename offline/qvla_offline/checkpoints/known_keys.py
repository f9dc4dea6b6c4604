"""The keys of a checkpoint's JSON files: which are read, which are harmless, which are refused.

Each key has one place in these lists. A key that would change the original code's numbers and is
not read here may have only the value that changes nothing; any other value is refused. A key that
no list has is named in a warning.

Sources: `configuration_prismatic.py` and `processing_prismatic.py` of openvla, transformers'
LlamaConfig (4.40 to 5), peft's LoraConfig.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qvla_ros.errors import QvlaError, QvlaWarning

_OTHER = "use a checkpoint with that value"
_MERGE = "merge it with the tools that trained it, and name the merged checkpoint"


@dataclass(frozen=True)
class KnownKeys:
    """The keys of one JSON object.

    read: used. harmless: no number depends on them. only: {key: the values under which the original
    code computes what this project does}; None (null) is always one of them. fix: what to do about
    another one.
    """

    read: frozenset[str]
    harmless: frozenset[str] = frozenset()
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    fix: str = _OTHER

    def check(self, data: Mapping[str, Any], where: str) -> None:
        """Raises QvlaError for a value that is refused, and warns of keys in no list.

        where: what stands before the key in messages: "config.json: text_config.".
        """
        for key, values in self.only.items():
            found = data.get(key)
            if found is not None and not any(_same(found, value) for value in values):
                wanted = " or ".join([repr(value) for value in values] + ["none"])
                raise QvlaError(f"{where}{key}", found, f"{wanted}: no other is run", self.fix)
        listed = self.read | self.harmless | set(self.only)
        unknown = [key for key in data if key not in listed]
        if unknown:
            names = ", ".join(map(str, unknown))
            text = (
                f"{where}{names}: not known here and not read; if it changes what the policy does"
            )
            warnings.warn(f"{text}, the numbers differ", QvlaWarning, stacklevel=3)


def _same(found: Any, value: Any) -> bool:
    return bool(found == value) and isinstance(found, bool) == isinstance(value, bool)


def _keys(names: str) -> frozenset[str]:
    return frozenset(names.split())


# What transformers writes into every config.json, for the model and inside text_config. The
# settings of text generation count for none of these policies: they decode greedily.
_TRANSFORMERS = _keys("""
    _attn_implementation _attn_implementation_autoset _attn_implementation_internal _commit_hash
    _name_or_path add_cross_attention architectures attn_implementation auto_map bad_words_ids
    begin_suppress_tokens bos_token_id chunk_size_feed_forward cross_attention_hidden_size
    decoder_start_token_id diversity_penalty do_sample dtype early_stopping
    encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task
    forced_bos_token_id forced_eos_token_id id2label is_decoder is_encoder_decoder label2id
    length_penalty max_length min_length model_type no_repeat_ngram_size num_beam_groups num_beams
    num_labels num_return_sequences output_attentions output_hidden_states output_scores
    pad_token_id prefix problem_type pruned_heads remove_invalid_values repetition_penalty
    return_dict return_dict_in_generate sep_token_id suppress_tokens task_specific_params
    temperature tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p torch_dtype
    torchscript transformers_version typical_p unsloth_fixed unsloth_version use_bfloat16 use_cache
    """)

# `tie_word_embeddings` counts inside text_config: the original code ties its language model's.
CONFIG = KnownKeys(
    read=_keys("""
        decoding image_resize_strategy image_sizes llm_backbone_id n_action_bins norm_stats oft
        pad_to_multiple_of resize_size text_config timm_model_ids timm_override_act_layers
        use_fused_vision_backbone vision_backbone_id vision_configs
        """),
    harmless=_TRANSFORMERS | _keys("arch_specifier hf_llm_id llm_max_length tie_word_embeddings"),
    only={"output_projector_states": (False,), "quantization_config": ()},
)

TEXT_CONFIG = KnownKeys(
    read=_keys("""
        hidden_size intermediate_size model_type num_attention_heads num_hidden_layers
        num_key_value_heads pad_token_id rms_norm_eps rope_parameters rope_scaling rope_theta
        head_dim tie_word_embeddings vocab_size
        """),
    harmless=_TRANSFORMERS - {"model_type", "pad_token_id"}
    | _keys("attention_dropout initializer_range max_position_embeddings pretraining_tp"),
    only={
        "hidden_act": ("silu",),
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "partial_rotary_factor": (1, 1.0),
        "sliding_window": (),
        "use_sliding_window": (False,),
        "quantization_config": (),
    },
)

ROPE = KnownKeys(
    read=frozenset({"rope_theta"}),
    only={"rope_type": ("default",), "type": ("default",), "partial_rotary_factor": (1, 1.0)},
)

PREPROCESSOR = KnownKeys(
    read=_keys("""
        image_resize_strategy input_sizes interpolations means stds tvf_crop_params
        tvf_do_letterbox tvf_normalize_params tvf_resize_params
        """),
    harmless=_keys("""
        _processor_class auto_map feature_extractor_type image_processor_type processor_class
        tvf_letterbox_fill use_fused_vision_backbone
        """),
)

DATASET = KnownKeys(
    read=frozenset({"action", "proprio"}),
    harmless=frozenset({"num_trajectories", "num_transitions"}),
)

LEVELS = KnownKeys(
    read=frozenset({"mask", "max", "min", "q01", "q99"}),
    harmless=frozenset({"mean", "std"}),
)

# `modules_to_save`: whole weights in the adapter's file, which replace the base's.
ADAPTER = KnownKeys(
    read=_keys("base_model_name_or_path lora_alpha r use_rslora"),
    harmless=_keys("""
        auto_mapping corda_config ensure_weight_tying eva_config exclude_modules inference_mode
        layers_pattern layers_to_transform loftq_config lora_dropout lora_ga_config megatron_config
        megatron_core modules_to_save peft_version qalora_group_size revision runtime_config
        target_modules task_type
        """),
    only={
        "peft_type": ("LORA",),
        "use_dora": (False,),
        "fan_in_fan_out": (False,),
        "bias": ("none",),
        "lora_bias": (False,),
        "rank_pattern": ({},),
        "alpha_pattern": ({},),
        "layer_replication": (),
        "trainable_token_indices": (),
        "target_parameters": ([],),
        "use_qalora": (False,),
        "use_bdlora": (),
        "alora_invocation_tokens": (),
        "arrow_config": (),
        # Other ways to begin change the base's weights too.
        "init_lora_weights": (True, False, "gaussian"),
    },
    fix=_MERGE,
)
