"""The two architectures as plain torch modules, named so that a state dict is a checkpoint.

Both read a batch of whole sequences (`forward`, for training) or one more token of each (`step`, for generation).
`step` is the literal recurrence and shares no arithmetic with the chunked scan of `forward`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import shapes

# Tokens that the scan treats at once. A tiling choice: every value gives the same sums.
CHUNK = 32
# Parameters that stay in f32 in a checkpoint.
WIDE = ("A_log", "D", "dt_bias")


class RmsNorm(nn.Module):
    """`x * rsqrt(mean(x^2) + eps) * weight` over the last axis, or over groups of it."""

    def __init__(self, width: int, eps: float, groups: int = 1):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps, self.groups = eps, groups

    def forward(self, x: Tensor) -> Tensor:
        if self.groups == 1:
            return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)
        grouped = x.unflatten(-1, (self.groups, -1))
        return F.rms_norm(grouped, grouped.shape[-1:], None, self.eps).flatten(-2) * self.weight


def linear(width_in: int, width_out: int) -> nn.Linear:
    return nn.Linear(width_in, width_out, bias=False)


# --- mixers ------------------------------------------------------------------------------------------------------


class Mamba2(nn.Module):
    """Input projection, causal convolution, selective scan, gated norm by groups, output projection."""

    def __init__(self, c: dict):
        super().__init__()
        self.heads, self.dim, self.state = c["mamba_num_heads"], c["mamba_head_dim"], c["ssm_state_size"]
        self.groups, self.taps = c["n_groups"], c["conv_kernel"]
        self.inner = self.heads * self.dim
        self.conv_dim = self.inner + 2 * self.groups * self.state
        self.in_proj = linear(c["hidden_size"], self.inner + self.conv_dim + self.heads)
        self.conv1d = nn.Conv1d(self.conv_dim, self.conv_dim, self.taps, groups=self.conv_dim)
        steps = torch.exp(torch.empty(self.heads).uniform_(math.log(c["time_step_min"]), math.log(c["time_step_max"])))
        self.dt_bias = nn.Parameter(steps + torch.log(-torch.expm1(-steps)))
        self.A_log = nn.Parameter(torch.log(torch.empty(self.heads).uniform_(1, 16)))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = RmsNorm(self.inner, c["layer_norm_epsilon"], self.groups)
        self.out_proj = linear(self.inner, c["hidden_size"])

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gate, the columns of the convolution, and the step of each head."""
        z, xbc, dt = self.in_proj(x).split([self.inner, self.conv_dim, self.heads], dim=-1)
        return z, xbc, F.softplus(dt.float() + self.dt_bias)

    def parts(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x by heads, B and C by groups."""
        x, b, c = mixed.split([self.inner, self.groups * self.state, self.groups * self.state], dim=-1)
        by_group = (self.groups, self.state)
        return x.unflatten(-1, (self.heads, self.dim)), b.unflatten(-1, by_group), c.unflatten(-1, by_group)

    def finish(self, y: Tensor, z: Tensor) -> Tensor:
        return self.out_proj(self.norm(y.flatten(-2) * F.silu(z)))

    def forward(self, hidden: Tensor, _: object) -> Tensor:
        z, xbc, dt = self.project(hidden)
        length = xbc.shape[1]
        padded = F.pad(xbc, (0, 0, self.taps - 1, 0))
        taps = self.conv1d.weight[:, 0, :]
        mixed = self.conv1d.bias + sum(padded[:, k : k + length] * taps[:, k] for k in range(self.taps))
        x, b, c = self.parts(F.silu(mixed))
        y = scan(x, dt, -torch.exp(self.A_log), b, c)
        return self.finish(y + self.D[:, None] * x, z)

    def start(self, rows: int, _: int) -> dict:
        like = self.in_proj.weight
        return {
            "window": like.new_zeros(rows, self.taps, self.conv_dim),
            "state": like.new_zeros(rows, self.heads, self.dim, self.state),
        }

    def step(self, hidden: Tensor, cache: dict, _: object) -> Tensor:
        z, xbc, dt = self.project(hidden)
        window = cache["window"] = torch.cat([cache["window"][:, 1:], xbc[:, None]], dim=1)
        mixed = F.silu((window * self.conv1d.weight[:, 0, :].T).sum(1) + self.conv1d.bias)
        x, b, c = self.parts(mixed)
        share = self.heads // self.groups
        b, c = b.repeat_interleave(share, 1), c.repeat_interleave(share, 1)
        kept = torch.exp(dt * -torch.exp(self.A_log))[:, :, None, None] * cache["state"]
        state = cache["state"] = kept + (dt[..., None] * x)[..., None] * b[:, :, None, :]
        y = (state * c[:, :, None, :]).sum(-1) + self.D[:, None] * x
        return self.finish(y, z)


def scan(x: Tensor, dt: Tensor, decay: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """`S = exp(dt * decay) S + dt x b^T; y = S c`, with products over chunks in the place of single steps.

    x [rows, tokens, heads, dim], dt [rows, tokens, heads], decay [heads], b and c [rows, tokens, groups, state].
    """
    rows, length, heads, dim = x.shape
    groups, share = b.shape[2], heads // b.shape[2]
    chunks = -(-length // CHUNK)
    missing = chunks * CHUNK - length
    x = x * dt[..., None].to(x.dtype)
    log = dt * decay
    if missing:
        x, b, c = (F.pad(t, (0, 0, 0, 0, 0, missing)) for t in (x, b, c))
        log = F.pad(log, (0, 0, 0, missing))

    # From here: [rows * chunks, groups, share, tokens, ...].
    def cut(t: Tensor) -> Tensor:
        return t.reshape(rows * chunks, CHUNK, groups, -1, t.shape[-1]).permute(0, 2, 3, 1, 4)

    x, b, c = cut(x), cut(b), cut(c)
    log = log.reshape(rows * chunks, CHUNK, groups, share).permute(0, 2, 3, 1).cumsum(-1)
    future = torch.ones(CHUNK, CHUNK, dtype=torch.bool).triu(1)
    within = (log[..., :, None] - log[..., None, :]).masked_fill(future, -math.inf).exp()
    y = ((c @ b.transpose(-1, -2)) * within.to(x.dtype)) @ x
    if chunks == 1:
        return y.permute(0, 3, 1, 2, 4).reshape(rows, CHUNK, heads, dim)[:, :length]
    to_end = (log[..., -1:] - log).exp()[..., None].to(x.dtype)
    added = ((x * to_end).transpose(-1, -2) @ b).unflatten(0, (rows, chunks))
    whole = log[..., -1].exp().unflatten(0, (rows, chunks))[..., None, None].to(x.dtype)
    states = [torch.zeros_like(added[:, 0])]
    for n in range(chunks - 1):
        states.append(whole[:, n] * states[-1] + added[:, n])
    before = torch.stack(states, dim=1).flatten(0, 1)
    y = y + (c @ before.transpose(-1, -2)) * log.exp()[..., None].to(x.dtype)
    return y.permute(0, 3, 1, 2, 4).reshape(rows, chunks * CHUNK, heads, dim)[:, :length]


class Attention(nn.Module):
    """Grouped-query causal attention; rotates queries and keys where it is given angles."""

    def __init__(self, hidden: int, heads: int, kv_heads: int, dim: int):
        super().__init__()
        self.heads, self.kv_heads, self.dim = heads, kv_heads, dim
        self.q_proj = linear(hidden, heads * dim)
        self.k_proj = linear(hidden, kv_heads * dim)
        self.v_proj = linear(hidden, kv_heads * dim)
        self.o_proj = linear(heads * dim, hidden)

    def project(self, x: Tensor, angles: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (p(x).unflatten(-1, (-1, self.dim)) for p in (self.q_proj, self.k_proj, self.v_proj))
        if angles is not None:
            q, k = rotate(q, *angles), rotate(k, *angles)
        return q, k, v

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor] | None) -> Tensor:
        q, k, v = (t.transpose(1, 2) for t in self.project(x, angles))
        share = self.heads // self.kv_heads
        k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
        future = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1)
        scores = (q * self.dim**-0.5) @ k.transpose(-1, -2)
        y = scores.masked_fill(future, -math.inf).softmax(-1) @ v
        return self.o_proj(y.transpose(1, 2).flatten(-2))

    def start(self, rows: int, length: int) -> dict:
        empty = self.q_proj.weight.new_zeros(rows, length, self.kv_heads, self.dim)
        return {"k": empty, "v": empty.clone(), "seen": 0}

    def step(self, x: Tensor, cache: dict, angles: tuple[Tensor, Tensor] | None) -> Tensor:
        q, k, v = self.project(x, angles)
        seen = cache["seen"] = cache["seen"] + 1
        cache["k"][:, seen - 1], cache["v"][:, seen - 1] = k, v
        q = q.unflatten(1, (self.kv_heads, -1))
        scores = torch.einsum("rgsd,rtgd->rgst", q, cache["k"][:, :seen]) * self.dim**-0.5
        y = torch.einsum("rgst,rtgd->rgsd", scores.softmax(-1), cache["v"][:, :seen])
        return self.o_proj(y.flatten(1))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Half-split rotary embedding of x [.., heads, dim]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class SquaredRelu(nn.Module):
    """`down(relu(up(x))^2)`."""

    def __init__(self, hidden: int, width: int):
        super().__init__()
        self.up_proj, self.down_proj = linear(hidden, width), linear(width, hidden)

    def forward(self, x: Tensor, _: object = None) -> Tensor:
        return self.down_proj(torch.relu(self.up_proj(x)).square())

    def start(self, *_: int) -> dict:
        return {}

    def step(self, x: Tensor, *_: object) -> Tensor:
        return self.forward(x)


class SwiGlu(nn.Module):
    """`down(silu(gate(x)) * up(x))`."""

    def __init__(self, hidden: int, width: int):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = linear(hidden, width), linear(hidden, width), linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


# --- models ------------------------------------------------------------------------------------------------------


class HybridLayer(nn.Module):
    """One norm and one mixer, added to the stream."""

    def __init__(self, c: dict, letter: str):
        super().__init__()
        hidden = c["hidden_size"]
        self.norm = RmsNorm(hidden, c["layer_norm_epsilon"])
        if letter == "M":
            self.mixer = Mamba2(c)
        elif letter == "*":
            self.mixer = Attention(hidden, c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"])
        else:
            self.mixer = SquaredRelu(hidden, c["intermediate_size"])


class Hybrid(nn.Module):
    """nemotron_h: Mamba-2, attention without positions, squared-ReLU FFNs; one mixer a layer."""

    def __init__(self, c: dict):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.embeddings = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.backbone.layers = nn.ModuleList(HybridLayer(c, letter) for letter in c["hybrid_override_pattern"])
        self.backbone.norm_f = RmsNorm(c["hidden_size"], c["layer_norm_epsilon"])
        self.lm_head = linear(c["hidden_size"], c["vocab_size"])

    def forward(self, ids: Tensor) -> Tensor:
        """The stream after the last norm, [rows, tokens, hidden]; `lm_head` makes logits of it."""
        x = self.backbone.embeddings(ids)
        for layer in self.backbone.layers:
            x = x + layer.mixer(layer.norm(x), None)
        return self.backbone.norm_f(x)

    def start(self, rows: int, length: int) -> list[dict]:
        """Caches for `rows` sequences of up to `length` tokens."""
        return [layer.mixer.start(rows, length) for layer in self.backbone.layers]

    def step(self, ids: Tensor, caches: list[dict], _: int) -> Tensor:
        """Logits [rows, vocab] after one more token of each row."""
        x = self.backbone.embeddings(ids)
        for layer, cache in zip(self.backbone.layers, caches, strict=True):
            x = x + layer.mixer.step(layer.norm(x), cache, None)
        return self.lm_head(self.backbone.norm_f(x))


class NasLayer(nn.Module):
    """A slot of which architecture search may have removed the attention, the FFN or both."""

    def __init__(self, c: dict, block: dict):
        super().__init__()
        hidden, heads, eps = c["hidden_size"], c["num_attention_heads"], c["rms_norm_eps"]
        attention, ffn = block["attention"], block["ffn"]
        self.self_attn = self.mlp = None
        if not attention["no_op"]:
            self.input_layernorm = RmsNorm(hidden, eps)
            self.self_attn = Attention(hidden, heads, heads // attention["n_heads_in_group"], hidden // heads)
        if not ffn["no_op"]:
            self.post_attention_layernorm = RmsNorm(hidden, eps)
            self.mlp = SwiGlu(hidden, shapes.ffn_width(ffn["ffn_mult"], hidden))


class Nas(nn.Module):
    """nemotron-nas: Llama slots, each with what architecture search left of it."""

    def __init__(self, c: dict):
        super().__init__()
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.model.layers = nn.ModuleList(NasLayer(c, block) for block in c["block_configs"])
        self.model.norm = RmsNorm(c["hidden_size"], c["rms_norm_eps"])
        self.lm_head = linear(c["hidden_size"], c["vocab_size"])
        angles = torch.arange(c["max_position_embeddings"])[:, None] * frequencies(c)
        angles = torch.cat([angles, angles], dim=-1)[:, None, :]
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """The stream after the last norm, [rows, tokens, hidden]; `lm_head` makes logits of it."""
        x = self.model.embed_tokens(ids)
        angles = self.cos[: ids.shape[1]].to(x.dtype), self.sin[: ids.shape[1]].to(x.dtype)
        for layer in self.model.layers:
            if layer.self_attn is not None:
                x = x + layer.self_attn(layer.input_layernorm(x), angles)
            if layer.mlp is not None:
                x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.model.norm(x)

    def start(self, rows: int, length: int) -> list[dict]:
        """Caches for `rows` sequences of up to `length` tokens."""
        return [layer.self_attn.start(rows, length) if layer.self_attn is not None else {} for layer in self.model.layers]

    def step(self, ids: Tensor, caches: list[dict], position: int) -> Tensor:
        """Logits [rows, vocab] after one more token of each row, which all stand at `position`."""
        x = self.model.embed_tokens(ids)
        angles = self.cos[position], self.sin[position]
        for layer, cache in zip(self.model.layers, caches, strict=True):
            if layer.self_attn is not None:
                x = x + layer.self_attn.step(layer.input_layernorm(x), cache, angles)
            if layer.mlp is not None:
                x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.lm_head(self.model.norm(x))


def frequencies(c: dict) -> Tensor:
    """Angular frequencies with Llama 3's scaling: slow ones are divided, fast ones kept, a ramp between."""
    dim = c["hidden_size"] // c["num_attention_heads"]
    plain = c["rope_theta"] ** (-torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    s = c["rope_scaling"]
    turns = s["original_max_position_embeddings"] * plain / (2 * math.pi)
    kept = ((turns - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])).clamp(0, 1)
    return kept * plain + (1 - kept) * plain / s["factor"]


def build(config: dict) -> Hybrid | Nas:
    """An untrained model: normal weights, outputs to the stream scaled down by the number of additions to it."""
    model = Hybrid(config) if config["model_type"] == "nemotron_h" else Nas(config)
    outputs = [n for n, _ in model.named_parameters() if n.endswith(("out_proj.weight", "o_proj.weight", "down_proj.weight"))]
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(("embeddings.weight", "embed_tokens.weight")):
                p.normal_(std=0.5)
            elif p.dim() == 2:
                p.normal_(std=p.shape[1] ** -0.5 * (len(outputs) ** -0.5 if name in outputs else 1.0))
    return model
