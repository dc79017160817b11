"""Eager PyTorch on layers of the shape of a Llama of 8 B, and what the GPU itself can do; prints one line of JSON."""

import json
import time

import torch
import torch.nn.functional as F

LAYERS, HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 32, 4096, 14336, 32, 8, 128, 128256
DTYPE, DEVICE = torch.bfloat16, "cuda"


def seconds(work, repeat):
    """Seconds of one call, after one that is not counted."""
    work()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeat):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeat


def matrix(rows, columns):
    return torch.randn(rows, columns, dtype=DTYPE, device=DEVICE) * 0.02


class Layer:
    """Attention over a cache and a gated FFN, without rotation of positions."""

    def __init__(self):
        self.qkv = matrix((HEADS + 2 * KV_HEADS) * HEAD_DIM, HIDDEN)
        self.out = matrix(HIDDEN, HEADS * HEAD_DIM)
        self.gate_up = matrix(2 * FFN, HIDDEN)
        self.down = matrix(HIDDEN, FFN)
        self.norm = torch.ones(HIDDEN, dtype=DTYPE, device=DEVICE)

    def __call__(self, x, cache):
        rows = x.shape[0]
        qkv = F.linear(F.rms_norm(x, (HIDDEN,), self.norm), self.qkv)
        q, k, v = qkv.view(1, rows, -1, HEAD_DIM).transpose(1, 2).split([HEADS, KV_HEADS, KV_HEADS], 1)
        if cache is not None:
            k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
        k, v = (part.repeat_interleave(HEADS // KV_HEADS, 1) for part in (k, v))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
        x = x + F.linear(attended.transpose(1, 2).reshape(rows, -1), self.out)
        gate, up = F.linear(F.rms_norm(x, (HIDDEN,), self.norm), self.gate_up).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down)


@torch.inference_mode()
def main():
    found = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    n = 8192
    a, b = matrix(n, n), matrix(n, n)
    found["matmul_bf16_tflop_s"] = 2 * n**3 / seconds(lambda: a @ b, 10) / 1e12
    source = torch.empty(1 << 30, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    found["copy_gb_s"] = 2 * source.numel() / seconds(lambda: target.copy_(source), 10) / 1e9
    del a, b, source, target

    layers, head = [Layer() for _ in range(LAYERS)], matrix(VOCAB, HIDDEN)
    cached = torch.randn(1, KV_HEADS, 512, HEAD_DIM, dtype=DTYPE, device=DEVICE)

    def through(rows, cache):
        x = matrix(rows, HIDDEN)
        for layer in layers:
            x = layer(x, cache)
        return F.linear(x[-1:], head)

    found["decode_tok_s"] = 1 / seconds(lambda: through(1, (cached, cached)), 20)
    found["prefill_8192_tok_s"] = 8192 / seconds(lambda: through(8192, None), 2)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
