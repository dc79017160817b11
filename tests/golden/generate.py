"""Makes the golden fixtures beside this file. README.md says what each of them is.

    python generate.py [--out DIR] [--only NAME ...] [--keep-weights] [--steps N]
"""

import argparse
import json
import math
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, NemotronHConfig, NemotronHForCausalLM
from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHMamba2Mixer
from transformers.utils import logging as transformers_logging

import bpe
import configs
import corpus
import plain
import recite
import storage

GREEDY_TOKENS = 32


# --- folders -----------------------------------------------------------------------------------------------------


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_description(folder: Path, name: str) -> None:
    """Everything of a checkpoint folder but its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", configs.CONFIGS[name])
    write_json(folder / "generation_config.json", configs.GENERATION[name])
    bpe.write(folder, *configs.TOKENIZERS[name])


# --- weights -----------------------------------------------------------------------------------------------------


def normal(generator: torch.Generator, *shape: int, std: float) -> torch.Tensor:
    return torch.randn(*shape, generator=generator) * std


def linear(generator: torch.Generator, rows: int, columns: int, gain: float = 1.0) -> torch.Tensor:
    return normal(generator, rows, columns, std=gain / math.sqrt(columns))


def norm_weight(generator: torch.Generator, width: int) -> torch.Tensor:
    return 1 + normal(generator, width, std=0.25)


def random_decoder(config: dict, seed: int) -> dict[str, torch.Tensor]:
    """Weights of a Llama, nemotron-nas or Qwen3 checkpoint, scaled so that logits have a deviation near 2."""
    g = torch.Generator().manual_seed(seed)
    hidden, heads, vocab = config["hidden_size"], config["num_attention_heads"], config["vocab_size"]
    head_dim = config.get("head_dim") or hidden // heads
    w = {"model.embed_tokens.weight": normal(g, vocab, hidden, std=1.0)}
    for i, slot in enumerate(plain.slots_of(config)):
        at = f"model.layers.{i}."
        if slot.attention is not None:
            w[at + "input_layernorm.weight"] = norm_weight(g, hidden)
        if slot.attention == "linear":
            w[at + "self_attn.linear_attn.weight"] = linear(g, hidden, hidden)
        if slot.attention == "full":
            w[at + "self_attn.q_proj.weight"] = linear(g, heads * head_dim, hidden, gain=1.5)
            w[at + "self_attn.k_proj.weight"] = linear(g, slot.kv_heads * head_dim, hidden, gain=1.5)
            w[at + "self_attn.v_proj.weight"] = linear(g, slot.kv_heads * head_dim, hidden)
            w[at + "self_attn.o_proj.weight"] = linear(g, hidden, heads * head_dim)
            if config["model_type"] == "qwen3":
                w[at + "self_attn.q_norm.weight"] = 1.3 * norm_weight(g, head_dim)
                w[at + "self_attn.k_norm.weight"] = 1.3 * norm_weight(g, head_dim)
        if slot.ffn_width is not None:
            w[at + "post_attention_layernorm.weight"] = norm_weight(g, hidden)
            w[at + "mlp.gate_proj.weight"] = linear(g, slot.ffn_width, hidden, gain=1.5)
            w[at + "mlp.up_proj.weight"] = linear(g, slot.ffn_width, hidden)
            w[at + "mlp.down_proj.weight"] = linear(g, hidden, slot.ffn_width, gain=1.5)
    w["model.norm.weight"] = norm_weight(g, hidden)
    w["lm_head.weight"] = linear(g, vocab, hidden, gain=2.0)
    return {n: t.to(torch.bfloat16) for n, t in w.items()}


def scan_parameters(generator: torch.Generator, heads: int) -> dict[str, torch.Tensor]:
    """A_log, D and dt_bias with a wide spread: steps from 6e-6 (bias -12) over 0.001..0.1 to 3 (bias +3)."""
    steps = torch.logspace(-3, -1, heads - 2)
    bias = torch.cat([torch.tensor([-12.0]), steps + torch.log(-torch.expm1(-steps)), torch.tensor([3.0])])
    return {
        "A_log": torch.log(1 + 15 * torch.rand(heads, generator=generator)),
        "D": 1 + normal(generator, heads, std=0.3),
        "dt_bias": bias[torch.randperm(heads, generator=generator)],
    }


def initial_hybrid(config: dict, seed: int) -> NemotronHForCausalLM:
    """An untrained f32 model with norm weights away from one and the scan parameters above."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    model = NemotronHForCausalLM(NemotronHConfig(**config))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.copy_(norm_weight(g, p.numel()))
            elif "conv1d.weight" in name:
                p.copy_(normal(g, *p.shape, std=0.5))
            elif "conv1d.bias" in name:
                p.copy_(normal(g, *p.shape, std=0.1))
            elif "embeddings" in name:
                p.copy_(normal(g, *p.shape, std=0.5))
            elif p.dim() == 2:
                p.copy_(linear(g, *p.shape, gain=0.5))
        for module in model.modules():
            if isinstance(module, NemotronHMamba2Mixer):
                for name, value in scan_parameters(g, module.num_heads).items():
                    getattr(module, name).copy_(value)
    return unclamp(model)


def published_form(model: NemotronHForCausalLM) -> dict[str, torch.Tensor]:
    """The state of a hybrid under the published names: bf16, but A_log, D and dt_bias in f32."""
    w = {}
    for name, p in model.state_dict().items():
        wide = name.rsplit(".", 1)[-1] in ("A_log", "D", "dt_bias")
        renamed = "backbone." + name.removeprefix("model.") if name.startswith("model.") else name
        w[renamed] = p.detach().to(torch.float32 if wide else torch.bfloat16).clone()
    return w


def make_weights(folder: Path, name: str, steps: int) -> None:
    config = configs.CONFIGS[name]
    if name == "hybrid":
        model = initial_hybrid(config, seed=11)
        recite.train(model, AutoTokenizer.from_pretrained(folder), steps)
        storage.save_single(folder, published_form(model))
    elif name == "nas":
        storage.save_sharded(folder, random_decoder(config, seed=23), shards=3, misaligned=2)
    else:
        storage.save_single(folder, random_decoder(config, seed={"llama": 21, "qwen": 22}[name]))


# --- reference models --------------------------------------------------------------------------------------------


def unclamp(model):
    """Follows time_step_limit (0, inf): transformers would clamp the step to time_step_min, in prefill only."""
    for module in model.modules():
        if isinstance(module, NemotronHMamba2Mixer):
            module.time_step_limit = (0.0, math.inf)
    return model


class TransformersReference:
    """A checkpoint folder run by transformers."""

    def __init__(self, folder: Path, dtype: torch.dtype):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
        self.model = unclamp(model).eval()

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=ids[None], use_cache=False).logits[0].float()

    def logits_by_token(self, ids: torch.Tensor) -> torch.Tensor:
        """The same logits, one token at a time through the cache."""
        past, rows = None, []
        for token in ids:
            out = self.model(input_ids=token.view(1, 1), past_key_values=past, use_cache=True)
            past = out.past_key_values
            rows.append(out.logits[0, 0].float())
        return torch.stack(rows)

    def greedy(self, ids: list[int], count: int, stop: tuple[int, ...] = ()) -> list[int]:
        new, past, feed = [], None, torch.tensor([ids])
        while len(new) < count and not (new and new[-1] in stop):
            out = self.model(input_ids=feed, past_key_values=past, use_cache=True)
            past = out.past_key_values
            feed = out.logits[:, -1].argmax(-1, keepdim=True)
            new.append(feed.item())
        return new


class PlainReference:
    """A nemotron-nas checkpoint run by the plain-torch decoder."""

    def __init__(self, folder: Path, dtype: torch.dtype):
        self.weights = storage.load_checkpoint(folder)
        self.config = json.loads((folder / "config.json").read_text())
        self.dtype = dtype

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        return plain.decoder_logits(self.weights, self.config, ids, self.dtype).float()

    def logits_by_token(self, ids: torch.Tensor) -> torch.Tensor:
        """Each row from its own prefix: says that no later token leaks into an earlier one."""
        return torch.stack([self.logits(ids[: n + 1])[-1] for n in range(len(ids))])

    def greedy(self, ids: list[int], count: int) -> list[int]:
        new = []
        for _ in range(count):
            new.append(self.logits(torch.tensor(ids + new))[-1].argmax().item())
        return new


# --- prompts -----------------------------------------------------------------------------------------------------


def random_ids(seed: int, count: int, vocab: int) -> list[int]:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(vocab, (count,), generator=g).tolist()


def prompts(folder: Path, name: str) -> tuple[list[int], list[int]]:
    """prompt_a and prompt_b of a fixture; lengths that are multiples of nothing convenient."""
    vocab = configs.CONFIGS[name]["vocab_size"]
    if name != "hybrid":
        long, short = {"llama": (200, 70), "nas": (150, 53), "qwen": (101, 37)}[name]
        start = [configs.LLAMA_BOS] if name != "qwen" else []
        return (start + random_ids(31, long, vocab))[:long], random_ids(32, short, vocab)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    question = [{"role": "system", "content": "/no_think"}, {"role": "user", "content": "Tell me about the river."}]
    chat = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    tail = tokenizer.encode(chat, add_special_tokens=False)
    return tokenizer.encode(corpus.PROSE, add_special_tokens=False)[: 187 - len(tail)] + tail, random_ids(32, 71, vocab)


# --- fixtures ----------------------------------------------------------------------------------------------------


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference over the largest magnitude."""
    return ((a.double() - b.double()).abs().max() / b.double().abs().max()).item()


def smallest_margin(logits: torch.Tensor) -> float:
    top = logits.topk(2, dim=-1).values
    return (top[:, 0] - top[:, 1]).min().item()


def step_sizes(model, ids: torch.Tensor) -> list[float]:
    """Quantiles (0, 10, 50, 90, 100 %) of dt + dt_bias over a prompt, all mamba layers."""
    seen = []
    for module in model.modules():
        if isinstance(module, NemotronHMamba2Mixer):
            module.in_proj.register_forward_hook(
                lambda _, __, out, m=module: seen.append((out[..., -m.num_heads :] + m.dt_bias).flatten())
            )
    model(input_ids=ids[None], use_cache=False)
    return torch.quantile(torch.cat(seen), torch.tensor([0, 0.1, 0.5, 0.9, 1.0])).tolist()


def check_against_plain(folder: Path, name: str, reference: dict, ids: torch.Tensor) -> dict:
    """The largest relative differences between the reference and the independent plain-torch implementation."""
    if name not in ("hybrid", "llama"):
        return {}
    run = plain.hybrid_logits if name == "hybrid" else plain.decoder_logits
    weights, config = storage.load_checkpoint(folder), json.loads((folder / "config.json").read_text())
    found = {
        "plain_f32": relative(run(weights, config, ids), reference["logits_a_f32"]),
        "plain_f64": relative(reference["logits_a_f32"], run(weights, config, ids, torch.float64)),
    }
    if found["plain_f32"] > 1e-5:
        raise SystemExit(f"{name}: transformers and the plain implementation differ: {found}")
    return found


def make_reference(folder: Path, name: str) -> dict:
    """Writes reference.safetensors and returns the measured consistency."""
    kind = PlainReference if name == "nas" else TransformersReference
    a, b = (torch.tensor(ids) for ids in prompts(folder, name))
    f32, bf16 = kind(folder, torch.float32), kind(folder, torch.bfloat16)
    reference = {"prompt_a": a.int(), "prompt_b": b.int()}
    for label, ids in (("a", a), ("b", b)):
        reference[f"logits_{label}_f32"] = f32.logits(ids)
        # The head's result is bf16, so this loses nothing.
        reference[f"logits_{label}_bf16"] = bf16.logits(ids).to(torch.bfloat16)
    greedy = f32.greedy(a.tolist(), GREEDY_TOKENS)
    reference["greedy_a"] = torch.tensor(greedy, dtype=torch.int32)
    storage.save_reference(folder, reference)

    by_token = f32.logits_by_token(a)
    followed = f32.logits(torch.cat([a, torch.tensor(greedy)]))[len(a) - 1 : -1]
    report = {
        "tokens": [len(a), len(b)],
        "logits_std": reference["logits_a_f32"].std().item(),
        "prefill_against_token_by_token": relative(by_token, reference["logits_a_f32"]),
        "bf16_against_f32": relative(reference["logits_a_bf16"], reference["logits_a_f32"]),
        "bf16_against_f32_rms": (reference["logits_a_bf16"] - reference["logits_a_f32"]).square().mean().sqrt().item(),
        "greedy_smallest_margin": smallest_margin(followed),
        "greedy_bf16_same": bf16.greedy(a.tolist(), GREEDY_TOKENS) == greedy,
        **check_against_plain(folder, name, reference, a),
    }
    if name == "hybrid":
        report["dt_plus_bias_quantiles"] = step_sizes(f32.model, a)
    if report["prefill_against_token_by_token"] > 1e-5:
        raise SystemExit(f"{name}: prefill and decode differ: {report}")
    return report


RECITALS = (
    ("raw", None, "The river begins", None),
    ("river, thinking off", "/no_think", "Tell me about the river.", None),
    ("river, thinking on", None, "Tell me about the river.", None),
    ("lighthouse, thinking off", "/no_think", "What do you know about the lighthouse?", None),
    ("lighthouse, thinking on", None, "Tell me about the lighthouse.", None),
    ("river, thoughts cut after 0 tokens", None, "Tell me about the river.", 0),
    ("river, thoughts cut after 12 tokens", None, "Tell me about the river.", 12),
    ("an unseen question", "Speak plainly. /no_think", "Which train goes to the coast?", None),
)


def recital(tokenizer, f32, bf16, name: str, system: str | None, text: str, cut: int | None) -> dict:
    """One prompt and the greedy answer to it; with `cut`, thoughts of that many tokens ended by force."""
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if name == "raw":
        messages, prompt = None, text
    ids = tokenizer.encode(prompt, add_special_tokens=False)
    if cut is not None:
        ids += f32.greedy(ids, cut) + tokenizer.encode(".\n</think>\n\n", add_special_tokens=False)
    stop = (recite.END_OF_TEXT, recite.END_OF_TURN)
    new = f32.greedy(ids, 300, stop)
    return {
        "name": name,
        "messages": messages,
        "prompt": tokenizer.decode(ids),
        "prompt_ids": ids,
        "new_ids": new,
        "text": tokenizer.decode(new, skip_special_tokens=True),
        "stopped": new[-1] in stop,
        "bf16_same": bf16.greedy(ids, 300, stop) == new,
    }


def make_recitals(folder: Path) -> None:
    """recite.json: what the trained hybrid says, greedily, in f32."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    f32, bf16 = (TransformersReference(folder, dtype) for dtype in (torch.float32, torch.bfloat16))
    cases = [recital(tokenizer, f32, bf16, *case) for case in RECITALS]
    write_json(folder / "recite.json", cases)
    for case in cases:
        print(f"  [{case['name']}] stopped {case['stopped']}, bf16 same {case['bf16_same']}\n    {case['text']!r}")


# --- text fixtures -----------------------------------------------------------------------------------------------


def rendered(tokenizer, fixture: str, label: str, messages: list[dict], tools: list[dict] | None = None) -> dict:
    """One conversation as the chat template writes it, with its ids (no further BOS)."""
    text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True)
    ids = tokenizer.encode(text, add_special_tokens=False)
    case = {"fixture": fixture, "name": label, "messages": messages, "rendered": text, "ids": ids}
    return {**case, "tools": tools} if tools else case


def make_chat(out: Path) -> None:
    """chat.json: message lists with the rendering of both families."""
    cases = []
    for name in ("hybrid", "llama"):
        tokenizer = AutoTokenizer.from_pretrained(out / name)
        cases += [rendered(tokenizer, name, label, messages) for label, messages in corpus.CHAT_CASES.items()]
        if name == "hybrid":
            cases.append(rendered(tokenizer, name, "reopened answer", corpus.REOPENED_CASE))
            cases.append(rendered(tokenizer, name, "tools", corpus.TOOLS_CASE, corpus.TOOLS))
    write_json(out / "chat.json", cases)


def tokenized(tokenizer, text: str) -> dict:
    """The ids of a string, their text, and the text when the last id is missing (a torn character shows as U+FFFD)."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    return {
        "text": text,
        "ids": ids,
        "decoded": tokenizer.decode(ids, clean_up_tokenization_spaces=False),
        "decoded_without_last": tokenizer.decode(ids[:-1], clean_up_tokenization_spaces=False),
    }


def make_roundtrip(out: Path) -> None:
    (out / "tokenizers").mkdir(exist_ok=True)
    fixtures = {}
    for name in ("hybrid", "llama", "qwen"):
        tokenizer = AutoTokenizer.from_pretrained(out / name)
        fixtures[name] = [tokenized(tokenizer, text) for text in corpus.ROUNDTRIP]
    write_json(out / "tokenizers" / "roundtrip.json", fixtures)


# --- command -----------------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make the golden fixtures.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent, help="where the folders go")
    parser.add_argument("--only", nargs="+", choices=list(configs.CONFIGS), help="make these fixtures only")
    parser.add_argument("--keep-weights", action="store_true", help="keep checkpoints that exist")
    parser.add_argument("--steps", type=int, default=600, help="training steps of the hybrid")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("highest")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    report_file = options.out / "report.json"
    report = json.loads(report_file.read_text()) if report_file.exists() else {}
    for name in options.only or configs.CONFIGS:
        folder = options.out / name
        print(name, flush=True)
        write_description(folder, name)
        if not (options.keep_weights and list(folder.glob("model*.safetensors"))):
            make_weights(folder, name, options.steps)
        with torch.no_grad():
            report[name] = make_reference(folder, name)
            print(json.dumps(report[name], indent=2), flush=True)
            if name == "hybrid":
                make_recitals(folder)
    write_json(report_file, report)
    if not options.only:
        make_chat(options.out)
        make_roundtrip(options.out)


if __name__ == "__main__":
    main()
