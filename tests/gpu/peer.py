"""PyTorch on layers of the shapes of two systems, and what the GPU itself can do.

    peer.py card | nemotron-nano-9b-v2 | llama-3.1-nemotron-nano-8b-v1   prints a line of JSON for each measurement
    peer.py check [--device cpu]      that prompts and single tokens give the same logits, at tiny shapes in f32

Whole models with random weights, from token ids to the next ones: torch's own products, attention, convolution and
norms; the scan in chunks for prompts, its recurrence for single tokens. Decode steps are CUDA graphs, so that no launch
waits for Python. A measurement that does not fit into the memory is null.
"""

import argparse
import json
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F

CHUNK = 128
NEW = 32


@dataclass(frozen=True)
class Shape:
    """A system: its layers are M (Mamba-2), * (attention), - (a squared ReLU FFN), + (attention and a gated FFN)."""

    layers: str
    hidden: int
    ffn: int
    vocab: int
    heads: int
    kv_heads: int
    head_dim: int = 128
    theta: float = 0.0
    scan_heads: int = 0
    scan_dim: int = 0
    groups: int = 1
    state: int = 0
    taps: int = 4

    @property
    def inner(self):
        return self.scan_heads * self.scan_dim

    @property
    def packed(self):
        return self.inner + 2 * self.groups * self.state


SHAPES = {
    "nemotron-nano-9b-v2": Shape(
        layers="M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-",
        hidden=4480, ffn=15680, vocab=131072, heads=40, kv_heads=8,
        scan_heads=128, scan_dim=80, groups=8, state=128,
    ),
    "llama-3.1-nemotron-nano-8b-v1": Shape(
        layers="+" * 32, hidden=4096, ffn=14336, vocab=128256, heads=32, kv_heads=8, theta=500000.0
    ),
}  # fmt: skip
TINY = {
    "nemotron-nano-9b-v2": Shape(
        layers="M-M*-", hidden=48, ffn=80, vocab=64, heads=4, kv_heads=2, head_dim=16,
        scan_heads=8, scan_dim=6, groups=2, state=16,
    ),
    "llama-3.1-nemotron-nano-8b-v1": Shape(
        layers="+++", hidden=48, ffn=80, vocab=64, heads=4, kv_heads=2, head_dim=16, theta=10000.0
    ),
}  # fmt: skip


def norm(x, weight):
    return F.rms_norm(x, weight.shape, weight, 1e-5)


class Place:
    """Where tensors are made, and of what type."""

    def __init__(self, device, dtype):
        self.device, self.dtype = device, dtype

    def matrix(self, rows, columns):
        return torch.randn(rows, columns, dtype=self.dtype, device=self.device) * columns**-0.5

    def ones(self, *shape, dtype=None):
        return torch.ones(*shape, dtype=dtype or self.dtype, device=self.device)

    def zeros(self, *shape, dtype=None):
        return torch.zeros(*shape, dtype=dtype or self.dtype, device=self.device)

    def synchronize(self):
        if self.device == "cuda":
            torch.cuda.synchronize()


class Attention:
    """Grouped-query attention; what it keeps of a sequence are keys and values of `room` positions."""

    def __init__(self, shape, place):
        self.shape, self.place = shape, place
        heads, kv, dim = shape.heads, shape.kv_heads, shape.head_dim
        self.norm = place.ones(shape.hidden)
        self.qkv = place.matrix((heads + 2 * kv) * dim, shape.hidden)
        self.out = place.matrix(shape.hidden, heads * dim)

    def cache(self, seqs, room):
        size = (seqs, self.shape.kv_heads, room, self.shape.head_dim)
        return self.place.zeros(*size), self.place.zeros(*size)

    def __call__(self, x, cache, start, angles):
        seqs, rows, _ = x.shape
        heads, kv, dim = self.shape.heads, self.shape.kv_heads, self.shape.head_dim
        qkv = F.linear(norm(x, self.norm), self.qkv).view(seqs, rows, -1, dim).transpose(1, 2)
        q, k, v = qkv.split([heads, kv, kv], 1)
        if angles is not None:
            q, k = rotated(q, angles), rotated(k, angles)
        end = start + rows
        cache[0][:, :, start:end], cache[1][:, :, start:end] = k, v
        keys, values = (part[:, :, :end] for part in cache)
        attended = F.scaled_dot_product_attention(q, keys, values, is_causal=start == 0 and rows > 1, enable_gqa=True)
        return x + F.linear(attended.transpose(1, 2).reshape(seqs, rows, -1), self.out)


def rotated(x, angles):
    half = x.shape[-1] // 2
    cos, sin = angles
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


class Gated:
    """A gated FFN."""

    def __init__(self, shape, place):
        self.norm = place.ones(shape.hidden)
        self.gate_up = place.matrix(2 * shape.ffn, shape.hidden)
        self.down = place.matrix(shape.hidden, shape.ffn)

    def __call__(self, x):
        gate, up = F.linear(norm(x, self.norm), self.gate_up).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down)


class Squared:
    """An FFN with a squared ReLU."""

    def __init__(self, shape, place):
        self.norm = place.ones(shape.hidden)
        self.up = place.matrix(shape.ffn, shape.hidden)
        self.down = place.matrix(shape.hidden, shape.ffn)

    def __call__(self, x):
        return x + F.linear(F.relu(F.linear(norm(x, self.norm), self.up)).square(), self.down)


class Mamba:
    """Mamba-2; what it keeps of a sequence are the inputs of the last taps, and the state of the scan in f32."""

    def __init__(self, shape, place):
        self.shape, self.place = shape, place
        self.norm = place.ones(shape.hidden)
        self.inside = place.matrix(shape.inner + shape.packed + shape.scan_heads, shape.hidden)
        self.taps = torch.rand(shape.packed, shape.taps, dtype=place.dtype, device=place.device) - 0.5
        self.bias = place.zeros(shape.packed)
        f32 = {"dtype": torch.float32, "device": place.device}
        self.a = -torch.exp(torch.rand(shape.scan_heads, **f32) * 2.7)
        self.step = torch.rand(shape.scan_heads, **f32) * 4 - 4
        self.skip = place.ones(shape.scan_heads)
        self.gated = place.ones(shape.inner // shape.groups)
        self.out = place.matrix(shape.hidden, shape.inner)

    def cache(self, seqs, room):
        of = self.shape
        past = self.place.zeros(seqs, of.packed, of.taps - 1)
        return past, self.place.zeros(seqs, of.scan_heads, of.scan_dim, of.state, dtype=torch.float32)

    def __call__(self, x, cache, start, angles):
        of = self.shape
        seqs, rows, _ = x.shape
        parts = F.linear(norm(x, self.norm), self.inside)
        z, xbc, dt = parts.split([of.inner, of.packed, of.scan_heads], -1)
        past, state = cache
        window = torch.cat([past, xbc.transpose(1, 2)], 2)
        past.copy_(window[:, :, rows:])
        if rows == 1:
            xbc = ((window * self.taps).sum(-1) + self.bias)[:, None]
        else:
            xbc = F.conv1d(window, self.taps[:, None], self.bias, groups=of.packed).transpose(1, 2)
        xbc = F.silu(xbc)
        inner, b, c = xbc.split([of.inner, of.groups * of.state, of.groups * of.state], -1)
        inner = inner.reshape(seqs, rows, of.scan_heads, of.scan_dim)
        b, c = (part.reshape(seqs, rows, of.groups, of.state) for part in (b, c))
        dt = F.softplus(dt.float() + self.step)
        y = (recurrent if rows == 1 else chunked)(inner, dt, self.a, b, c, state)
        y = y + inner * self.skip[:, None]
        y = y.reshape(seqs, rows, of.groups, -1) * F.silu(z).reshape(seqs, rows, of.groups, -1)
        return x + F.linear(norm(y, self.gated).reshape(seqs, rows, -1), self.out)


def recurrent(x, dt, a, b, c, state):
    """One token of each sequence: state = exp(dt a) state + (dt x) b^T; y = state c."""
    seqs, _, heads, dim = x.shape
    share = heads // b.shape[2]
    b, c = (part[:, 0].float().repeat_interleave(share, 1) for part in (b, c))
    dt = dt[:, 0, :, None]
    state.mul_(torch.exp(dt * a[:, None])[..., None])
    state.addcmul_((dt * x[:, 0])[..., None], b[..., None, :])
    return (state @ c[..., None]).to(x.dtype).reshape(seqs, 1, heads, dim)


def chunked(x, dt, a, b, c, state):
    """Prompts in chunks: products inside of each, and states from one to the next. Tokens added to fill the last chunk
    have a step of 0, which changes no state."""
    seqs, rows, heads, dim = x.shape
    groups, share, kind = b.shape[2], heads // b.shape[2], x.dtype
    size = min(CHUNK, rows)
    more = -rows % size
    x, dt, b, c = (F.pad(part, [0] * (2 * (part.dim() - 2)) + [0, more]) for part in (x, dt, b, c))
    count = (rows + more) // size
    # [seqs, chunk, groups, (heads of a group), rows, columns]
    x = (x * dt[..., None]).to(kind).view(seqs, count, size, groups, share, dim).permute(0, 1, 3, 4, 2, 5)
    b, c = (part.view(seqs, count, size, groups, 1, -1).permute(0, 1, 3, 4, 2, 5) for part in (b, c))
    decay = (dt * a).view(seqs, count, size, groups, share).permute(0, 1, 3, 4, 2).cumsum(-1)
    within = (decay[..., :, None] - decay[..., None, :]).tril().exp().tril().to(kind)
    y = (c @ b.transpose(-1, -2) * within) @ x
    rest = (decay[..., -1:] - decay).exp().to(kind)
    states = (x * rest[..., None]).transpose(-1, -2) @ b
    # The state before each chunk and after the last: sums of those of all before, by how much of them is left.
    states = torch.cat([state.view(seqs, 1, groups, share, dim, -1), states.float()], 1)
    ends = F.pad(decay[..., -1].permute(0, 2, 3, 1), (1, 0)).cumsum(-1)
    left = (ends[..., :, None] - ends[..., None, :]).tril().exp().tril()
    states = (left @ states.permute(0, 2, 3, 1, 4, 5).flatten(4)).unflatten(4, (dim, -1)).permute(0, 3, 1, 2, 4, 5)
    state.copy_(states[:, -1].reshape(state.shape))
    y = y + (c @ states[:, :-1].to(kind).transpose(-1, -2)) * decay.exp().to(kind)[..., None]
    return y.permute(0, 1, 4, 2, 3, 5).reshape(seqs, rows + more, heads, dim)[:, :rows]


class Model:
    """A system with random weights."""

    def __init__(self, shape, place):
        self.shape, self.place = shape, place
        self.embedding, self.head = place.matrix(shape.vocab, shape.hidden), place.matrix(shape.vocab, shape.hidden)
        self.norm = place.ones(shape.hidden)
        mixers = {"M": [Mamba], "*": [Attention], "-": [Squared], "+": [Attention, Gated]}
        self.layers = [mixer(shape, place) for kind in shape.layers for mixer in mixers[kind]]
        half = shape.head_dim // 2
        self.frequencies = (shape.theta or 1.0) ** (-torch.arange(half, device=place.device) / half)

    def caches(self, seqs, room):
        return [layer.cache(seqs, room) if hasattr(layer, "cache") else None for layer in self.layers]

    def __call__(self, tokens, caches, start):
        """Logits of the last token of each sequence."""
        angles = None
        if self.shape.theta:
            positions = torch.arange(start, start + tokens.shape[1], device=self.place.device)
            turns = (positions[:, None] * self.frequencies).repeat(1, 2)
            angles = turns.cos().to(self.place.dtype), turns.sin().to(self.place.dtype)
        x = self.embedding[tokens]
        for layer, cache in zip(self.layers, caches):
            x = layer(x) if cache is None else layer(x, cache, start, angles)
        return F.linear(norm(x[:, -1], self.norm), self.head).float()


def seconds(place, work, repeat):
    """Seconds of one call, after one that is not counted."""
    work()
    place.synchronize()
    start = time.perf_counter()
    for _ in range(repeat):
        work()
    place.synchronize()
    return (time.perf_counter() - start) / repeat


def prefill_tok_s(model, prompt, repeat):
    tokens = torch.randint(model.shape.vocab, (1, prompt), device=model.place.device)
    caches = model.caches(1, prompt)
    return prompt / seconds(model.place, lambda: model(tokens, caches, 0).argmax(-1), repeat)


def decode_tok_s(model, seqs, context, repeat):
    tokens = torch.randint(model.shape.vocab, (seqs, 1), device=model.place.device)
    caches = model.caches(seqs, context + 1)

    def step():
        tokens.copy_(model(tokens, caches, context).argmax(-1, keepdim=True))

    if model.place.device != "cuda":
        return seqs / seconds(model.place, step, repeat)
    # What is recorded must have run before, on another stream.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return seqs / seconds(model.place, graph.replay, repeat)


def measured(measure):
    """A rate or a model, or nothing where it does not fit into the memory."""
    try:
        return measure()
    except torch.cuda.OutOfMemoryError:
        return None
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def report(**fields):
    print(json.dumps(fields), flush=True)


def system(name, args):
    # States pass from chunk to chunk in f32, which tensor cores may multiply as TF32.
    torch.set_float32_matmul_precision("high")
    place = Place(args.device, torch.bfloat16)
    model = measured(lambda: Model((TINY if args.tiny else SHAPES)[name], place))
    prompts = [16, 40] if args.tiny else [512, 8192]
    for prompt in prompts:
        rate = model and measured(lambda: prefill_tok_s(model, prompt, 3 if prompt == prompts[0] else 1))
        report(system=name, seqs=1, prompt=prompt, prefill_tok_s=rate)
    for seqs in [1, 8, 64]:
        # As long a context as the benches have in the middle of their new tokens.
        rate = model and measured(lambda: decode_tok_s(model, seqs, prompts[0] + NEW // 2, 20))
        report(system=name, seqs=seqs, prompt=prompts[0], decode_tok_s=rate)


def card(args):
    place = Place(args.device, torch.bfloat16)
    n = 256 if args.tiny else 8192
    a, b = place.matrix(n, n), place.matrix(n, n)
    matmul = 2 * n**3 / seconds(place, lambda: a @ b, 10) / 1e12
    source = torch.empty(n * n * 16, dtype=torch.uint8, device=place.device)
    target = torch.empty_like(source)
    copy = 2 * source.numel() / seconds(place, lambda: target.copy_(source), 10) / 1e9
    report(torch=torch.__version__, matmul_bf16_tflop_s=matmul, copy_gb_s=copy)


def check(args):
    place = Place(args.device, torch.float32)
    for name, shape in TINY.items():
        for rows in [1, 5, CHUNK, 2 * CHUNK + 9]:
            model = Model(shape, place)
            tokens = torch.randint(shape.vocab, (2, rows + 1), device=place.device)
            whole = model(tokens, model.caches(2, rows + 1), 0)
            caches = model.caches(2, rows + 1)
            model(tokens[:, :rows], caches, 0)
            after = model(tokens[:, rows:], caches, rows)
            caches = model.caches(2, rows + 1)
            for at in range(rows + 1):
                single = model(tokens[:, at : at + 1], caches, at)
            for what, found in [("a token after the prompt", after), ("single tokens", single)]:
                error = ((found - whole).norm() / whole.norm()).item()
                report(system=name, rows=rows, what=what, error=error)
                if not error < 1e-4:
                    raise SystemExit(f"{name}, {rows} rows: {what} give other logits: {error}")


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["card", "check", *SHAPES])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="tiny shapes: to see that it runs")
    args = parser.parse_args()
    torch.manual_seed(1)
    {"card": card, "check": check}.get(args.what, lambda args: system(args.what, args))(args)


if __name__ == "__main__":
    main()
