"""Trains one of the tiny models, or goes on where it stopped. README.md says what the models are.

    python train.py nano2-tiny [--runs DIR] [--out DIR] [--steps N] [--threads N]

The run is kept in DIR/<name>.pt: weights, optimiser, random state and step. When the last step is done, the checkpoint
folder is written.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import chat
import checkpoint
import data
import nets
import shapes
import task
import vocabulary

HERE = Path(__file__).resolve().parent
EASY_NUMBERS = 3


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. `easy` is the share of the steps with short problems only."""

    steps: int = 3000
    rate: float = 3e-3
    warmup: int = 200
    easy: float = 0.15
    decay: float = 0.05
    seed: int = 1
    average: float = 0.998


def keep_memory() -> None:
    """Tells glibc to keep freed memory: mapping the large tensors anew in each step costs more than computing them."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


def optimizer_of(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; only matrices decay."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    groups = [{"params": matrices, "weight_decay": recipe.decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98), fused=True)


def rate_at(step: int, recipe: Recipe) -> float:
    """A warm-up, then half a cosine down to two per cent."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def loss_of(model: nn.Module, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the learnt tokens. Logits are made for these places only."""
    learnt = labels != data.IGNORED
    return F.cross_entropy(model.lm_head(model(ids)[learnt]), labels[learnt])


class Run:
    """A training run that can be put on disk after any step. `seconds` is what it took of all cores together."""

    def __init__(self, name: str, recipe: Recipe, file: Path):
        torch.manual_seed(recipe.seed)
        self.recipe, self.file = recipe, file
        self.model = nets.build(shapes.CONFIGS[name])
        self.average = [p.detach().clone() for p in self.model.parameters()]
        self.optimizer = optimizer_of(self.model, recipe)
        self.source = data.Source(name, vocabulary.train(name), data.Mixture(), recipe.seed)
        self.step, self.seconds = 0, 0.0
        if file.exists():
            self.load()

    def load(self) -> None:
        saved = torch.load(self.file, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.average = saved["average"]
        self.optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["random"])
        self.step, self.seconds = saved["step"], saved["seconds"]

    def save(self) -> None:
        """Writes beside the old file first, so that a stop at any time leaves a whole one."""
        new = self.file.with_suffix(".new")
        torch.save(
            {
                "model": self.model.state_dict(),
                "average": self.average,
                "optimizer": self.optimizer.state_dict(),
                "random": torch.get_rng_state(),
                "step": self.step,
                "seconds": self.seconds,
            },
            new,
        )
        os.replace(new, self.file)

    def advance(self) -> float:
        """One step; gives its loss."""
        recipe = self.recipe
        # The sequences of a pool are drawn together.
        easy = self.step - self.step % data.POOL < recipe.easy * recipe.steps
        most = EASY_NUMBERS if easy else task.MOST_NUMBERS
        start = time.process_time()
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.step, recipe)
        loss = loss_of(self.model, *self.source.batch(self.step, most))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        # Early weights are soon forgotten, so that the average is of use after any number of steps.
        keep = min(recipe.average, self.step / (self.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, list(self.model.parameters()), 1 - keep)
        self.step += 1
        self.seconds += time.process_time() - start
        return loss.item()

    def averaged(self) -> nn.Module:
        """The model with the averaged weights."""
        with torch.no_grad():
            for p, mean in zip(self.model.parameters(), self.average, strict=True):
                p.copy_(mean)
        return self.model


def train(run: Run) -> None:
    """Goes on to the last step; tells the loss now and then."""
    told = []
    while run.step < run.recipe.steps:
        told.append(run.advance())
        if run.step % 50 == 0:
            print(f"step {run.step}  loss {sum(told) / len(told):.4f}  {run.seconds / 60:.1f} core minutes", flush=True)
            told = []
        if run.step % 100 == 0:
            run.save()
    run.save()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a tiny model.")
    parser.add_argument("name", choices=list(chat.FAMILIES))
    parser.add_argument("--runs", type=Path, default=HERE / "runs", help="where the state of the run is kept")
    parser.add_argument("--out", type=Path, default=HERE, help="where the checkpoint folder goes")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    keep_memory()
    options.runs.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(steps=options.steps)
    run = Run(options.name, recipe, options.runs / f"{options.name}.pt")
    train(run)
    folder = options.out / options.name
    checkpoint.write_description(folder, options.name)
    checkpoint.write_weights(folder, run.averaged())


if __name__ == "__main__":
    main()
