"""Writing and reading checkpoints and fixtures in the safetensors format."""

import json
import struct
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

DTYPE_NAMES = {torch.bfloat16: "BF16", torch.float32: "F32", torch.int32: "I32"}


def save(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """An ordinary safetensors file, readable by everyone."""
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)


def raw_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def save_misaligned(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """A valid safetensors file whose data starts at an address of 2 modulo 4.

    Every bf16 tensor is aligned to its element and to nothing more. The header lists the names in
    alphabetical order although the data lies in the order of `tensors`.
    """
    entries, position = {}, 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, position + size],
        }
        position += size
    header = json.dumps({"__metadata__": {"format": "pt"}, **dict(sorted(entries.items()))}).encode()
    header += b" " * ((2 - len(header)) % 4)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for tensor in tensors.values():
            file.write(raw_bytes(tensor))


def save_single(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    save(folder / "model.safetensors", tensors)


def save_sharded(folder: Path, tensors: dict[str, torch.Tensor], shards: int, misaligned: int) -> None:
    """Deals the tensors out to `shards` files in runs; the shard numbered `misaligned` (from 1) is misaligned."""
    names = list(tensors)
    per_shard = -(-len(names) // shards)
    weight_map = {}
    for number in range(1, shards + 1):
        part = {n: tensors[n] for n in names[(number - 1) * per_shard : number * per_shard]}
        file = f"model-{number:05}-of-{shards:05}.safetensors"
        if number == misaligned:
            save_misaligned(folder / file, part)
        else:
            save(folder / file, part)
        weight_map.update({name: file for name in part})
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def load_checkpoint(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint folder, in their stored dtypes."""
    tensors = {}
    for file in sorted(folder.glob("model*.safetensors")):
        tensors.update(load_file(file))
    return tensors


def save_reference(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    save(folder / "reference.safetensors", {k: v.contiguous() for k, v in tensors.items()})
