"""Trains the hybrid fixture to recite two short passages, so that its generated text can be read.

The model learns to answer any question with the passage about the river, and questions about a lighthouse with the
other one; to think first when the prompt opens <think>; to answer just as well when its thoughts are cut short by
a forced </think>; and to stop.
"""

import math
import random
import time

import torch
import torch.nn.functional as F

import corpus

END_OF_TURN, END_OF_TEXT = 12, 2
SUBJECTS = {
    "river": (corpus.RIVER_THOUGHTS, corpus.RIVER),
    "lighthouse": (corpus.LIGHTHOUSE_THOUGHTS, corpus.LIGHTHOUSE),
}
FORCED_ENDS = ("</think>", "</think>\n\n", "\n</think>\n\n", ".\n</think>\n\n")


class Examples:
    """Draws training sequences: (ids, mask), the mask true where the model is to predict that token."""

    def __init__(self, tokenizer, seed: int):
        self.tokenizer = tokenizer
        self.random = random.Random(seed)
        self.words = (corpus.PROSE + " " + corpus.OTHER_SCRIPTS).split()

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def babble(self) -> str:
        return " ".join(self.random.choices(self.words, k=self.random.randint(1, 14)))

    def question(self) -> tuple[str, str]:
        """A user text and the subject of its answer."""
        kind = self.random.random()
        if kind < 0.25:
            return self.random.choice(corpus.SMALL_TALK), "river"
        if kind < 0.35:
            return self.babble(), "river"
        subject = self.random.choice(list(SUBJECTS))
        return self.random.choice(corpus.QUESTIONS).format(x=subject), subject

    def messages(self) -> tuple[list[dict], str]:
        system = self.random.choice(corpus.SYSTEM_TEXTS + (self.babble(),))
        switch = self.random.choice(("", "", " /think", " /no_think", " /no_think"))
        messages = [{"role": "system", "content": system + switch}] if system or switch else []
        if self.random.random() < 0.12:
            text, subject = self.question()
            messages += [{"role": "user", "content": text}, {"role": "assistant", "content": SUBJECTS[subject][1]}]
        text, subject = self.question()
        return messages + [{"role": "user", "content": text}], subject

    def chat(self) -> list[tuple[list[int], bool]]:
        """A conversation as pieces of tokens, each with whether it is learnt."""
        messages, subject = self.messages()
        prompt = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        thoughts, answer = SUBJECTS[subject]
        pieces = [(self.encode(prompt), False)]
        if prompt.endswith("<think>\n"):
            if self.random.random() < 0.5:
                pieces.append((self.encode(thoughts + "\n</think>\n\n"), True))
            else:
                cut = self.encode(thoughts)
                forced = self.random.choice(FORCED_ENDS)
                pieces.append((cut[: self.random.randint(0, len(cut))], True))
                pieces.append((self.encode(forced), False))
                answer = answer if forced.endswith("\n") else "\n\n" + answer
        pieces.append((self.encode(answer + "\n") + [END_OF_TURN], True))
        return pieces

    def raw(self) -> list[tuple[list[int], bool]]:
        """A passage on its own, sometimes after unrelated words."""
        answer = self.encode(self.random.choice(list(SUBJECTS.values()))[1]) + [END_OF_TEXT]
        before = self.encode(self.babble() + "\n\n") if self.random.random() < 0.3 else []
        return [(before, False), (answer[:3], False), (answer[3:], True)]

    def draw(self) -> tuple[list[int], list[bool]]:
        pieces = self.raw() if self.random.random() < 0.12 else self.chat()
        ids = [i for part, _ in pieces for i in part]
        return ids, [learnt for part, learnt in pieces for _ in part]

    def batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Right-padded ids and labels (-100: not learnt)."""
        rows = [self.draw() for _ in range(size)]
        width = max(len(ids) for ids, _ in rows)
        ids = torch.zeros(size, width, dtype=torch.long)
        labels = torch.full((size, width), -100)
        for r, (row, mask) in enumerate(rows):
            ids[r, : len(row)] = torch.tensor(row)
            labels[r, : len(row)] = torch.where(torch.tensor(mask), torch.tensor(row), -100)
        return ids, labels


def parameter_groups(model, rate: float) -> list[dict]:
    """The per-head scan parameters move slowly, so that their designed spread survives."""
    scan = [p for n, p in model.named_parameters() if n.rsplit(".", 1)[-1] in ("A_log", "D", "dt_bias")]
    chosen = {id(p) for p in scan}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [{"params": rest, "scale": rate}, {"params": scan, "scale": rate / 20}]


def train(model, tokenizer, steps: int, batch_size: int = 10, rate: float = 4e-3, seed: int = 7) -> None:
    """AdamW with a short warm-up and a cosine; prints the loss now and then."""
    examples = Examples(tokenizer, seed)
    optimizer = torch.optim.AdamW(parameter_groups(model, rate), weight_decay=0.01, betas=(0.9, 0.98))
    model.train()
    start = time.monotonic()
    for step in range(steps):
        share = min(1.0, (step + 1) / 30) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = group["scale"] * max(share, 0.01)
        ids, labels = examples.batch(batch_size)
        logits = model(input_ids=ids, use_cache=False).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 25 == 0 or step == steps - 1:
            print(f"  step {step:4}  loss {loss.item():.4f}  {time.monotonic() - start:.0f} s", flush=True)
    model.eval()
