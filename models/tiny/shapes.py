"""config.json and generation_config.json of the two models, in the style of the released files."""

from __future__ import annotations

INFINITY = float("inf")  # json writes the bare word Infinity, as the released files do
CONTEXT = 1024
VOCABULARY = 512

NANO2 = {
    "architectures": ["NemotronHForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "chunk_size": 32,
    "conv_kernel": 4,
    "eos_token_id": 12,
    "expand": 2,
    "head_dim": 32,
    "hidden_dropout": 0.0,
    "hidden_size": 128,
    "hybrid_override_pattern": "M-M*-M-M*-",
    "initializer_range": 0.02,
    "intermediate_size": 512,
    "layer_norm_epsilon": 1e-05,
    "mamba_head_dim": 32,
    "mamba_hidden_act": "silu",
    "mamba_num_heads": 8,
    "mamba_proj_bias": False,
    "max_position_embeddings": CONTEXT,
    "mlp_bias": False,
    "mlp_hidden_act": "relu2",
    "model_type": "nemotron_h",
    "n_groups": 2,
    "num_attention_heads": 4,
    "num_hidden_layers": 10,
    "num_key_value_heads": 2,
    "num_logits_to_keep": 1,
    "pad_token_id": 0,
    "rescale_prenorm_residual": True,
    "residual_in_fp32": False,
    "rms_norm_eps": 1e-05,
    "sliding_window": None,
    "ssm_state_size": 32,
    "tie_word_embeddings": False,
    "time_step_floor": 0.0001,
    "time_step_limit": [0.0, INFINITY],
    "time_step_max": 0.1,
    "time_step_min": 0.001,
    "torch_dtype": "bfloat16",
    "use_bias": False,
    "use_cache": True,
    "use_conv_bias": True,
    "vocab_size": VOCABULARY,
}


def slot(heads_in_group: int | None, ffn_mult: float | None) -> dict:
    """One entry of `block_configs` with the full set of keys; what is not given is a no_op."""
    return {
        "attention": {
            "n_heads_in_group": heads_in_group,
            "no_op": heads_in_group is None,
            "num_sink_tokens": None,
            "replace_with_linear": False,
            "sparsify": None,
            "unshifted_sink": False,
            "use_prefill_window_in_sink_attention": False,
            "window_length": None,
        },
        "ffn": {"ffn_mult": ffn_mult, "no_op": ffn_mult is None, "replace_with_linear": False, "sparsify": None},
    }


# The multiples are those that the released lists use; with 128 columns, the widths of the comments come out.
NAS_SLOTS = [
    slot(2, 2.625),  # 2 kv heads, width 256
    slot(2, 5.25),  # 2 kv heads, width 512
    slot(None, 2.625),  # attention skipped, width 256
    slot(2, 2.625),
    slot(None, None),  # empty
    slot(4, 2.625),  # 1 kv head
    slot(None, 11.25),  # attention skipped, fused FFN of width 1024
]

# The special tokens are the last ids of the vocabulary.
NAS_BOS, NAS_END_OF_TEXT, NAS_END_OF_MESSAGE, NAS_END_OF_TURN = 502, 503, 510, 511

NAS = {
    "architectures": ["DeciLMForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "block_configs": NAS_SLOTS,
    "bos_token_id": NAS_BOS,
    "eos_token_id": [NAS_END_OF_TEXT, NAS_END_OF_MESSAGE, NAS_END_OF_TURN],
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": None,
    "max_position_embeddings": CONTEXT,
    "mlp_bias": False,
    "model_type": "nemotron-nas",
    "num_attention_heads": 4,
    "num_hidden_layers": len(NAS_SLOTS),
    "num_key_value_heads": None,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 256,
        "rope_type": "llama3",
    },
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": VOCABULARY,
}

CONFIGS = {"nano2-tiny": NANO2, "nas-tiny": NAS}
GENERATION = {
    "nano2-tiny": {"bos_token_id": 1, "do_sample": False, "eos_token_id": [2, 12], "pad_token_id": 0},
    "nas-tiny": {
        "bos_token_id": NAS_BOS,
        "do_sample": False,
        "eos_token_id": [NAS_END_OF_TEXT, NAS_END_OF_MESSAGE, NAS_END_OF_TURN],
    },
}


def ffn_width(multiplier: float, hidden: int) -> int:
    """The published rule: two thirds of the multiple, rounded up to 256."""
    return -(-int(2 * multiplier * hidden / 3) // 256) * 256
