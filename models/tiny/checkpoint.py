"""Checkpoint folders in the Hugging Face layout."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import nets
import shapes
import vocabulary


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_description(folder: Path, name: str) -> None:
    """Everything of a checkpoint but its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", shapes.CONFIGS[name])
    write_json(folder / "generation_config.json", shapes.GENERATION[name])
    vocabulary.write(folder, name)


def stored(model: nn.Module) -> dict[str, Tensor]:
    """The tensors as they are published: bf16, but f32 for what the scan needs exactly."""
    tensors = {}
    for name, p in model.state_dict().items():
        wide = name.rsplit(".", 1)[-1] in nets.WIDE
        tensors[name] = p.detach().to(torch.float32 if wide else torch.bfloat16).contiguous()
    return tensors


def write_weights(folder: Path, model: nn.Module) -> None:
    file = folder / "model.safetensors"
    save_file(stored(model), file, metadata={"format": "pt"})
    file.chmod(0o644)


def open_model(folder: Path) -> nn.Module:
    """The model of a checkpoint folder, computing in f32."""
    model = nets.build(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    model.load_state_dict({n: t.float() for n, t in load_file(folder / "model.safetensors").items()})
    return model.eval()
