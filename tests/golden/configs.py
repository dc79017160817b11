"""config.json and generation_config.json of every fixture, in the style of the released files."""

INFINITY = float("inf")  # json writes the bare word Infinity, as the released files do

HYBRID = {
    "architectures": ["NemotronHForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "auto_map": {
        "AutoConfig": "configuration_nemotron_h.NemotronHConfig",
        "AutoModelForCausalLM": "modeling_nemotron_h.NemotronHForCausalLM",
    },
    "bos_token_id": 1,
    "chunk_size": 64,
    "conv_kernel": 4,
    "eos_token_id": 12,
    "expand": 2,
    "head_dim": 32,
    "hidden_dropout": 0.0,
    "hidden_size": 100,
    "hybrid_override_pattern": "M-M*-M-",
    "initializer_range": 0.02,
    "intermediate_size": 150,
    "layer_norm_epsilon": 1e-05,
    "mamba_head_dim": 80,
    "mamba_hidden_act": "silu",
    "mamba_num_heads": 6,
    "mamba_proj_bias": False,
    "max_position_embeddings": 2048,
    "mlp_bias": False,
    "mlp_hidden_act": "relu2",
    "model_type": "nemotron_h",
    "n_groups": 2,
    "num_attention_heads": 4,
    "num_hidden_layers": 7,
    "num_key_value_heads": 2,
    "num_logits_to_keep": 1,
    "pad_token_id": 0,
    "rescale_prenorm_residual": True,
    "residual_in_fp32": False,
    "rms_norm_eps": 1e-05,
    "sliding_window": None,
    "ssm_state_size": 24,
    "tie_word_embeddings": False,
    "time_step_floor": 0.0001,
    "time_step_limit": [0.0, INFINITY],
    "time_step_max": 0.1,
    "time_step_min": 0.001,
    "torch_dtype": "bfloat16",
    "use_bias": False,
    "use_cache": True,
    "use_conv_bias": True,
    "use_mamba_kernels": True,
    "vocab_size": 512,
}


def llama3_scaling(factor: float, original: int) -> dict:
    return {
        "factor": factor,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": original,
        "rope_type": "llama3",
    }


# The llama tokenizer of 380 entries ends with its ten special tokens.
LLAMA_TOKENIZER_SIZE = 380
LLAMA_BOS, LLAMA_EOS = 370, [371, 378, 379]

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": LLAMA_BOS,
    "eos_token_id": LLAMA_EOS,
    "head_dim": 16,
    "hidden_act": "silu",
    "hidden_size": 72,
    "initializer_range": 0.02,
    "intermediate_size": 200,
    "max_position_embeddings": 512,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 6,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": llama3_scaling(8.0, 64),
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 384,
}


def nas_block(heads_in_group: int | None = None, ffn_mult: float | None = None, linear: bool = False) -> dict:
    """One entry of block_configs with the full set of keys; what is not given is a no_op."""
    return {
        "attention": {
            "n_heads_in_group": heads_in_group,
            "no_op": heads_in_group is None and not linear,
            "num_sink_tokens": None,
            "replace_with_linear": linear,
            "sparsify": None,
            "unshifted_sink": False,
            "use_prefill_window_in_sink_attention": False,
            "window_length": None,
        },
        "ffn": {
            "ffn_mult": ffn_mult,
            "no_op": ffn_mult is None,
            "replace_with_linear": False,
            "sparsify": None,
        },
    }


NAS_BLOCKS = [
    nas_block(2, 5.25),  # 2 kv heads, width 256
    nas_block(None, 7.5),  # FFN only, width 512
    nas_block(4, 2.625),  # 1 kv head
    nas_block(None, None),  # empty
    nas_block(None, 5.25, linear=True),  # attention replaced by one matrix
    nas_block(1, None),  # attention only, 4 kv heads
    nas_block(None, 1.3125),  # FFN only
    nas_block(None, None),  # empty
    nas_block(2, 5.25),
]

NAS = {
    "_name_or_path": "llama_nemotron_nas_golden",
    "architectures": ["DeciLMForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "auto_map": {
        "AutoConfig": "configuration_decilm.DeciLMConfig",
        "AutoModelForCausalLM": "modeling_decilm.DeciLMForCausalLM",
    },
    "block_configs": NAS_BLOCKS,
    "bos_token_id": LLAMA_BOS,
    "eos_token_id": LLAMA_EOS,
    "hidden_act": "silu",
    "hidden_size": 64,
    "initializer_range": 0.02,
    "intermediate_size": None,
    "max_position_embeddings": 512,
    "mlp_bias": False,
    "model_type": "nemotron-nas",
    "num_attention_heads": 4,
    "num_hidden_layers": len(NAS_BLOCKS),
    "num_key_value_heads": None,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": llama3_scaling(16.0, 32),
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.48.3",
    "use_cache": True,
    "vocab_size": 384,
}

# The qwen tokenizer of 380 entries ends with <|endoftext|>, <|im_start|>, <|im_end|>.
QWEN_TOKENIZER_SIZE = 380

QWEN = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 377,
    "eos_token_id": 379,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 80,
    "initializer_range": 0.02,
    "intermediate_size": 144,
    "max_position_embeddings": 512,
    "max_window_layers": 2,
    "model_type": "qwen3",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 384,
}

GENERATION = {
    "hybrid": {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": [2, 12], "pad_token_id": 0},
    "llama": {
        "bos_token_id": LLAMA_BOS,
        "do_sample": True,
        "eos_token_id": LLAMA_EOS,
        "temperature": 0.6,
        "top_p": 0.95,
    },
    "nas": {"bos_token_id": LLAMA_BOS, "eos_token_id": LLAMA_EOS},
    "qwen": {"bos_token_id": 377, "eos_token_id": 379},
}

CONFIGS = {"hybrid": HYBRID, "llama": LLAMA, "nas": NAS, "qwen": QWEN}
TOKENIZERS = {
    "hybrid": ("nano", 512),
    "llama": ("llama", LLAMA_TOKENIZER_SIZE),
    "nas": ("llama", LLAMA_TOKENIZER_SIZE),
    "qwen": ("qwen", QWEN_TOKENIZER_SIZE),
}
