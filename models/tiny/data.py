"""Training sequences: conversations with the places that the model is to learn, in batches of like length."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

import chat
import task

IGNORED = -100
# Sequences are drawn this many batches at a time and sorted by length among themselves.
POOL = 32


@dataclass(frozen=True)
class Mixture:
    """Shares of the kinds of training sequences, and the sizes of a batch."""

    off: float = 0.25
    cut: float = 0.17
    with_past: float = 0.1
    rows: int = 64


Pieces = list[tuple[str, bool]]


def completion(rng: random.Random, family: chat.Family, problem: task.Problem, thinking: bool) -> Pieces:
    """What the assistant writes, all of it learnt."""
    thoughts = family.begin + problem.thoughts + chat.CLOSE if thinking else ""
    return [(thoughts + problem.answer + family.end, True)]


def past_of(rng: random.Random) -> list[dict]:
    """An earlier question with its answer, as it stands in a conversation that goes on."""
    problem = task.draw(rng, held_out=False, most=3)
    return [{"role": "user", "content": problem.question}, {"role": "assistant", "content": problem.answer}]


class Source:
    """Draws batches. The batch of a step depends on the seed and the step alone, so training resumes anywhere."""

    def __init__(self, name: str, tokenizer: Tokenizer, mixture: Mixture, seed: int):
        self.name, self.tokenizer, self.mixture, self.seed = name, tokenizer, mixture, seed
        self.family = chat.FAMILIES[name]
        self.pool: tuple[int, list] = (-1, [])

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def draw(self, rng: random.Random, most: int) -> tuple[list[int], list[bool]]:
        """Token ids, and which of them are learnt."""
        mixture, family = self.mixture, self.family
        problem = task.draw(rng, held_out=False, most=most)
        thinking, cut = rng.random() >= mixture.off, False
        if thinking:
            cut = rng.random() < mixture.cut / (1 - mixture.off)
        past = past_of(rng) if rng.random() < mixture.with_past else []
        messages = chat.messages_of(rng, self.name, problem.question, thinking, past)
        prompt = self.encode(family.prompt(messages))
        if cut:
            parts = self.cut_short(rng, problem)
        else:
            parts = [(self.encode(text), learnt) for text, learnt in completion(rng, family, problem, thinking)]
        parts = [(prompt, False), *parts]
        return [i for ids, _ in parts for i in ids], [learnt for ids, learnt in parts for _ in ids]

    def cut_short(self, rng: random.Random, problem: task.Problem) -> list[tuple[list[int], bool]]:
        """Thoughts that end early, mostly after a line, by a closing that the model did not choose; then the answer."""
        thoughts = self.encode(self.family.begin + problem.thoughts)
        begin = len(self.encode(self.family.begin))
        ends = [begin] + [n + 1 for n, i in enumerate(thoughts) if n >= begin and "\n" in self.tokenizer.decode([i])]
        cut = rng.choice(ends) if rng.random() < 0.75 else rng.randint(begin, len(thoughts))
        closing = rng.choice(chat.FORCED)
        answer = problem.answer + self.family.end
        if not closing.endswith("\n"):
            answer = "\n\n" + answer
        return [(thoughts[:cut], True), (self.encode(closing), False), (self.encode(answer), True)]

    def batch(self, step: int, most: int) -> tuple[Tensor, Tensor]:
        """Ids and labels of a step, filled up on the right."""
        number, place = divmod(step, POOL)
        if self.pool[0] != number:
            rng = random.Random(f"{self.seed} {number}")
            rows = [self.draw(rng, most) for _ in range(POOL * self.mixture.rows)]
            rows.sort(key=lambda row: len(row[0]))
            cuts = [rows[n : n + self.mixture.rows] for n in range(0, len(rows), self.mixture.rows)]
            rng.shuffle(cuts)
            self.pool = (number, cuts)
        return filled(self.pool[1][place])


def filled(rows: list[tuple[list[int], list[bool]]]) -> tuple[Tensor, Tensor]:
    """Rows of different lengths as one tensor; a label is the token that follows, where that is learnt."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORED)
    for r, (row, learnt) in enumerate(rows):
        tokens = torch.tensor(row)
        ids[r, : len(row)] = tokens
        labels[r, : len(row) - 1] = torch.where(torch.tensor(learnt), tokens, IGNORED)[1:]
    return ids, labels
