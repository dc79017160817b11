"""Measures a checkpoint folder on held-out problems, in f32 from the stored weights.

    python check.py accuracy FOLDER [--problems 500] [--budgets 0 8 16 32 64 128]
    python check.py problems [--count 500] > problems.jsonl
    python check.py reference FOLDER [--problems 200] [--write FILE]

`problems` writes one object a line, {"messages": [...], "answer": "..."}, as `nemort eval` reads them; nothing in it says
whether to think. `reference` answers the first of these problems greedily, thinking on and off, and checks each token with
an independent implementation: transformers or plain torch.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tokenizers import Tokenizer

import chat
import checkpoint
import shapes
import task
import vocabulary

MOST_NEW = 200
# Thoughts that a budget cuts go on to the end of their line, for at most a tenth of the budget.
GRACE = 0.1
END_OF_THOUGHTS = "</think>"


# --- problems ----------------------------------------------------------------------------------------------------


def held_out(name: str, count: int, thinking: bool, seed: int) -> list[dict]:
    """Held-out problems as conversations with their answers; no question stands in one twice."""
    rng = random.Random(seed)
    found, seen = [], set()
    while len(found) < count:
        problem = task.draw(rng, held_out=True)
        key = tuple(sorted(problem.numbers))
        if key in seen:
            continue
        seen.add(key)
        messages = chat.messages_of(rng, name, problem.question, thinking, [])
        found.append({"messages": messages, "answer": problem.answer, "thinking": "on" if thinking else "off"})
    return found


# --- generation --------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """One sequence that is being generated."""

    prompt: list[int]
    new: list[int] = field(default_factory=list)
    forced: list[int] = field(default_factory=list)
    budget: int | None = None
    done: bool = False


def force_close(row: Row, tokenizer: Tokenizer, begin: str, closing: list[int]) -> None:
    """Closes thoughts that have reached their budget, at the end of a line where one comes within the grace."""
    text = tokenizer.decode(row.new)
    if not text.startswith(begin) or END_OF_THOUGHTS in text:
        # Not yet begun, or over; a text that begins otherwise has no thoughts.
        row.budget = row.budget if begin.startswith(text) else None
        return
    used = len(row.new) - len(tokenizer.encode(begin, add_special_tokens=False).ids)
    if used >= row.budget and (used == 0 or text.endswith("\n") or used >= int(row.budget * (1 + GRACE))):
        row.forced, row.budget = list(closing), None


@torch.no_grad()
def generate(model, tokenizer: Tokenizer, prompts: list[list[int]], end: set[int], begin: str = "",
             budget: int | None = None) -> list[list[int]]:
    """Greedy continuations with their end token. All rows stand at the same position in every step.

    `begin` is what the model writes to open its thoughts, "" where the prompt has opened them.
    """
    rows = [Row(prompt, budget=budget) for prompt in prompts]
    closing = tokenizer.encode(chat.CLOSE, add_special_tokens=False).ids
    length = max(map(len, prompts)) + MOST_NEW
    caches = model.start(len(rows), length)
    fed = torch.tensor([row.prompt[0] for row in rows])
    for position in range(length):
        best = model.step(fed, caches, position).argmax(-1).tolist()
        for r, row in enumerate(rows):
            if position + 1 < len(row.prompt):
                fed[r] = row.prompt[position + 1]
                continue
            if row.done:
                continue
            if row.budget is not None:
                force_close(row, tokenizer, begin, closing)
            row.new.append(row.forced.pop(0) if row.forced else best[r])
            fed[r] = row.new[-1]
            row.done = row.new[-1] in end or len(row.new) == MOST_NEW
        if all(row.done for row in rows):
            break
    return [row.new for row in rows]


def answers(model, tokenizer: Tokenizer, name: str, problems: list[dict], budget: int | None = None) -> list[list[int]]:
    """What a model says to problems, as new token ids."""
    family = chat.FAMILIES[name]
    end = shapes.GENERATION[name]["eos_token_id"]
    prompts = [tokenizer.encode(family.prompt(p["messages"]), add_special_tokens=False).ids for p in problems]
    found = []
    for n in range(0, len(prompts), 250):
        found += generate(model, tokenizer, prompts[n : n + 250], set(end), family.begin, budget)
    return found


@dataclass(frozen=True)
class Score:
    """`correct` and `ended` are shares; `tokens` is the mean number of new ones."""

    correct: float
    ended: float
    tokens: float


def score(tokenizer: Tokenizer, name: str, problems: list[dict], found: list[list[int]]) -> Score:
    """Compares what follows the thoughts with the answers, to the last character."""
    end = shapes.GENERATION[name]["eos_token_id"]
    texts = [tokenizer.decode(new).split(END_OF_THOUGHTS)[-1].strip() for new in found]
    correct = sum(text == p["answer"] for text, p in zip(texts, problems, strict=True))
    ended = sum(new[-1] in end for new in found)
    return Score(correct / len(found), ended / len(found), sum(map(len, found)) / len(found))


# --- commands ----------------------------------------------------------------------------------------------------


def accuracy(options: argparse.Namespace) -> None:
    name = options.folder.resolve().name
    model, tokenizer = checkpoint.open_model(options.folder), vocabulary.open_folder(options.folder)

    def tell(label: str, problems: list[dict], budget: int | None) -> None:
        found = answers(model, tokenizer, name, problems, budget)
        s = score(tokenizer, name, problems, found)
        print(f"{label:>12}  {s.correct:7.1%} correct  {s.ended:7.1%} ended  {s.tokens:6.1f} tokens", flush=True)
        for problem, new in list(zip(problems, found, strict=True))[: options.show]:
            print(f"    {problem['messages'][-1]['content']}\n      {tokenizer.decode(new, skip_special_tokens=False)!r}")

    thinking = held_out(name, options.problems, True, options.seed)
    tell("off", held_out(name, options.problems, False, options.seed), None)
    tell("on", thinking, None)
    for budget in options.budgets:
        tell(f"budget {budget}", thinking, budget)


def plain_problems(count: int, seed: int) -> list[dict]:
    """Held-out questions alone, with their answers."""
    rng = random.Random(seed)
    drawn: dict[tuple[int, ...], dict] = {}
    while len(drawn) < count:
        problem = task.draw(rng, held_out=True)
        asked = [{"role": "user", "content": problem.question}]
        drawn.setdefault(tuple(sorted(problem.numbers)), {"messages": asked, "answer": problem.answer})
    return list(drawn.values())


def problems(options: argparse.Namespace) -> None:
    for problem in plain_problems(options.count, options.seed):
        json.dump(problem, sys.stdout, ensure_ascii=False)
        print()


def reference(options: argparse.Namespace) -> None:
    """Counts greedy continuations that an independent implementation gives as well.

    Where it finds every token of a continuation the most probable one after those before, it would have written the same.
    """
    name = options.folder.resolve().name
    model, tokenizer = checkpoint.open_model(options.folder), vocabulary.open_folder(options.folder)
    family, end = chat.FAMILIES[name], set(shapes.GENERATION[name]["eos_token_id"])
    cases = []
    for problem in plain_problems(options.problems, options.seed):
        for thinking, switch in (("on", family.on[0]), ("off", family.off[0])):
            told = [{"role": "system", "content": switch}, *problem["messages"]]
            cases.append({**problem, "thinking": thinking, "told": told})
    logits = independent(name, options.folder)
    same, largest, lines = 0, 0.0, []
    told = [{"messages": case.pop("told")} for case in cases]
    for case, given, new in zip(cases, told, answers(model, tokenizer, name, told), strict=True):
        prompt = tokenizer.encode(family.prompt(given["messages"]), add_special_tokens=False).ids
        theirs = logits(torch.tensor(prompt + new))[len(prompt) - 1 : -1]
        with torch.no_grad():
            ours = model.lm_head(model(torch.tensor([prompt + new])))[0, len(prompt) - 1 : -1]
        largest = max(largest, (ours - theirs).abs().max().item())
        same += theirs.argmax(-1).tolist() == new and new[-1] in end
        lines.append(json.dumps({**case, "prompt": prompt, "tokens": new}, ensure_ascii=False) + "\n")
    print(f"{same} of {len(cases)} continuations are the same; logits differ by {largest:.1e} at most")
    if same != len(cases):
        raise SystemExit(1)
    if options.write:
        options.write.write_text("".join(lines), encoding="utf-8")


def independent(name: str, folder: Path):
    """Logits [tokens, vocab] of a sequence by code that shares nothing with `nets`."""
    if name == "nano2-tiny":
        from transformers import NemotronHForCausalLM

        theirs = NemotronHForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        for module in theirs.modules():
            # transformers takes time_step_min for the limit of the step; the configuration says otherwise.
            if hasattr(module, "time_step_limit"):
                module.time_step_limit = (0.0, float("inf"))
        return torch.no_grad()(lambda ids: theirs(input_ids=ids[None], use_cache=False).logits[0])
    sys.path.append(str(Path(__file__).resolve().parents[2] / "tests" / "golden"))
    import plain
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return lambda ids: plain.decoder_logits(weights, config, ids)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure a tiny model.")
    parser.add_argument("--seed", type=int, default=5, help="of the held-out problems")
    parser.add_argument("--threads", type=int, default=2)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("accuracy", help="exact answers, thinking on and off and by budget")
    one.add_argument("folder", type=Path)
    one.add_argument("--problems", type=int, default=500)
    one.add_argument("--budgets", type=int, nargs="*", default=[])
    one.add_argument("--show", type=int, default=0, help="how many answers to print")
    one.set_defaults(run=accuracy)
    one = commands.add_parser("problems", help="held-out problems, one JSON object a line")
    one.add_argument("--count", type=int, default=500)
    one.set_defaults(run=problems)
    one = commands.add_parser("reference", help="the same tokens from an independent implementation")
    one.add_argument("folder", type=Path)
    one.add_argument("--problems", type=int, default=200)
    one.add_argument("--write", type=Path, help="where to keep prompts and tokens")
    one.set_defaults(run=reference)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    options.run(options)


if __name__ == "__main__":
    main()
