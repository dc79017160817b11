"""Plain-torch references, written from the published mathematics and independent of transformers.

`hybrid_logits` runs nemotron_h as the literal recurrence, one token after another.
`decoder_logits` runs Llama-shaped models slot by slot, with the slots that architecture search may remove or replace.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Root-mean-square norm computed in at least f32; the result has the type of x."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return wide.to(x.dtype) * weight


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Causal attention; q is [tokens, heads, d], k and v are [tokens, kv heads, d]."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    scores = torch.einsum("ihd,jhd->hij", q, k) * q.shape[-1] ** -0.5
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    scores = scores.masked_fill(future, -math.inf)
    wide = torch.promote_types(q.dtype, torch.float32)
    weights = torch.softmax(scores, dim=-1, dtype=wide).to(q.dtype)
    return torch.einsum("hij,jhd->ihd", weights, v).flatten(1)


# --- nemotron_h ------------------------------------------------------------------------------------------------


def mamba2(w: dict, x: torch.Tensor, c: dict) -> torch.Tensor:
    """The Mamba-2 mixer over x [tokens, hidden], token by token."""
    heads, dim, state, groups = c["mamba_num_heads"], c["mamba_head_dim"], c["ssm_state_size"], c["n_groups"]
    inner, taps = heads * dim, c["conv_kernel"]
    conv_dim = inner + 2 * groups * state
    decay = -torch.exp(w["A_log"])
    low, high = c["time_step_limit"]
    window = x.new_zeros(taps, conv_dim)
    S = x.new_zeros(heads, dim, state)
    out = []
    for p in x @ w["in_proj.weight"].T:
        z, xbc, dt = p.split([inner, conv_dim, heads])
        window = torch.cat([window[1:], xbc[None]])
        mixed = F.silu((window * w["conv1d.weight"].squeeze(1).T).sum(0) + w["conv1d.bias"])
        u, B, C = mixed.split([inner, groups * state, groups * state])
        u = u.view(heads, dim)
        B = B.view(groups, state).repeat_interleave(heads // groups, dim=0)
        C = C.view(groups, state).repeat_interleave(heads // groups, dim=0)
        dt = F.softplus(dt + w["dt_bias"]).clamp(low, high)
        S = torch.exp(dt * decay)[:, None, None] * S + (dt[:, None] * u)[:, :, None] * B[:, None, :]
        y = (S * C[:, None, :]).sum(-1) + w["D"][:, None] * u
        gated = (y.flatten() * F.silu(z)).view(groups, inner // groups)
        scale = w["norm.weight"].view(groups, inner // groups)
        out.append(rms_norm(gated, scale, c["layer_norm_epsilon"]).flatten())
    return torch.stack(out) @ w["out_proj.weight"].T


def nope_attention(w: dict, x: torch.Tensor, c: dict) -> torch.Tensor:
    """Grouped-query attention without any position encoding."""
    q, k, v = ((x @ w[f"{n}_proj.weight"].T).unflatten(-1, (-1, c["head_dim"])) for n in "qkv")
    return attend(q, k, v) @ w["o_proj.weight"].T


def squared_relu_mlp(w: dict, x: torch.Tensor, c: dict) -> torch.Tensor:
    return torch.relu(x @ w["up_proj.weight"].T).square() @ w["down_proj.weight"].T


HYBRID_MIXERS = {"M": mamba2, "*": nope_attention, "-": squared_relu_mlp}


def below(weights: dict, prefix: str) -> dict:
    """The entries under a name prefix, without it."""
    return {n[len(prefix) :]: t for n, t in weights.items() if n.startswith(prefix)}


def hybrid_logits(weights: dict, config: dict, ids: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Logits [tokens, vocab] of a nemotron_h checkpoint."""
    w = {n: t.to(dtype) for n, t in weights.items()}
    eps = config["layer_norm_epsilon"]
    x = w["backbone.embeddings.weight"][ids]
    for i, letter in enumerate(config["hybrid_override_pattern"]):
        layer = below(w, f"backbone.layers.{i}.")
        normed = rms_norm(x, layer["norm.weight"], eps)
        x = x + HYBRID_MIXERS[letter](below(layer, "mixer."), normed, config)
    return rms_norm(x, w["backbone.norm_f.weight"], eps) @ w["lm_head.weight"].T


# --- Llama and nemotron-nas --------------------------------------------------------------------------------------


@dataclass
class Slot:
    """One place in the layer list. `attention` is "full", "linear" or None."""

    attention: str | None
    kv_heads: int
    ffn_width: int | None


def ffn_width(multiplier: float, hidden: int) -> int:
    """The published rule: two thirds of the multiple, rounded up to 256."""
    return -(-int(2 * multiplier * hidden / 3) // 256) * 256


def slots_of(config: dict) -> list[Slot]:
    """The layer list of a nemotron-nas configuration, or the uniform one of a Llama configuration."""
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    if "block_configs" not in config:
        uniform = Slot("full", config["num_key_value_heads"], config["intermediate_size"])
        return [uniform] * config["num_hidden_layers"]
    slots = []
    for block in config["block_configs"]:
        attention, ffn = block["attention"], block["ffn"]
        kind = None if attention["no_op"] else "linear" if attention["replace_with_linear"] else "full"
        kv_heads = heads // attention["n_heads_in_group"] if kind == "full" else 0
        slots.append(Slot(kind, kv_heads, None if ffn["no_op"] else ffn_width(ffn["ffn_mult"], hidden)))
    return slots


def rope_frequencies(config: dict, head_dim: int) -> torch.Tensor:
    """Angular frequencies with Llama 3's scaling: slow ones are divided, fast ones kept, a ramp between."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    frequencies = 1.0 / config["rope_theta"] ** exponents
    scaling = config.get("rope_scaling")
    if scaling is None:
        return frequencies
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - smooth) * frequencies / scaling["factor"] + smooth * frequencies


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Half-split rotary embedding of x [tokens, heads, d]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def rope_attention(w: dict, x: torch.Tensor, head_dim: int, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    q, k, v = ((x @ w[f"self_attn.{n}_proj.weight"].T).unflatten(-1, (-1, head_dim)) for n in "qkv")
    return attend(rotate(q, cos, sin), rotate(k, cos, sin), v) @ w["self_attn.o_proj.weight"].T


def swiglu(w: dict, x: torch.Tensor) -> torch.Tensor:
    gate, up = x @ w["mlp.gate_proj.weight"].T, x @ w["mlp.up_proj.weight"].T
    return (F.silu(gate) * up) @ w["mlp.down_proj.weight"].T


def decoder_logits(weights: dict, config: dict, ids: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Logits [tokens, vocab] of a Llama or nemotron-nas checkpoint."""
    w = {n: t.to(dtype) for n, t in weights.items()}
    eps = config["rms_norm_eps"]
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    angles = torch.arange(len(ids))[:, None] * rope_frequencies(config, head_dim)
    angles = torch.cat([angles, angles], dim=-1)[:, None, :]
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    x = w["model.embed_tokens.weight"][ids]
    for i, slot in enumerate(slots_of(config)):
        layer = below(w, f"model.layers.{i}.")
        if slot.attention is not None:
            normed = rms_norm(x, layer["input_layernorm.weight"], eps)
            if slot.attention == "linear":
                x = x + normed @ layer["self_attn.linear_attn.weight"].T
            else:
                x = x + rope_attention(layer, normed, head_dim, cos, sin)
        if slot.ffn_width is not None:
            x = x + swiglu(layer, rms_norm(x, layer["post_attention_layernorm.weight"], eps))
    return rms_norm(x, w["model.norm.weight"], eps) @ w["lm_head.weight"].T
