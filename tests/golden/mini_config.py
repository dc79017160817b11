"""Counts the parameters of the speed models in mini/, or of any nemotron_h or llama config.json.

    python mini_config.py [CONFIG ...]
"""

import json
import sys
from pathlib import Path


def attention_parameters(c: dict) -> int:
    return 2 * c["hidden_size"] * c["head_dim"] * (c["num_attention_heads"] + c["num_key_value_heads"])


def mamba_parameters(c: dict) -> int:
    heads = c["mamba_num_heads"]
    inner = heads * c["mamba_head_dim"]
    conv = inner + 2 * c["n_groups"] * c["ssm_state_size"]
    projections = c["hidden_size"] * (inner + conv + heads) + inner * c["hidden_size"]
    return projections + conv * (c["conv_kernel"] + 1) + 3 * heads + inner


def parameters(c: dict) -> int:
    """All parameters, embedding and head included."""
    hidden, width = c["hidden_size"], c["intermediate_size"]
    outside = 2 * c["vocab_size"] * hidden + hidden
    if c["model_type"] == "llama":
        return outside + c["num_hidden_layers"] * (2 * hidden + attention_parameters(c) + 3 * hidden * width)
    mixers = {"M": mamba_parameters(c), "*": attention_parameters(c), "-": 2 * hidden * width}
    return outside + sum(hidden + mixers[letter] for letter in c["hybrid_override_pattern"])


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    for path in map(Path, sys.argv[1:] or sorted(here.glob("mini/*/config.json"))):
        print(f"{path.parent.name}: {parameters(json.loads(path.read_text())) / 1e9:.4f} B")
