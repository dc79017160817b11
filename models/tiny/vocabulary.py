"""The tokenizers: byte-level BPE of 512 entries, digits one by one, special tokens named as in the real families.

In both, `<think>` and `</think>` are ordinary text of several tokens, as in Nano 2 and Llama 3.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import chat
import shapes
import task

NANO_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Llama 3's, but for the digits, which it takes three at a time.
LLAMA_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NANO_SPECIALS = ["<unk>", "<s>", "</s>"] + [f"<SPECIAL_{i}>" for i in range(3, 20)]
LLAMA_SPECIALS = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|reserved_special_token_2|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
]
SPECIALS = {
    "nano2-tiny": {"bos_token": "<s>", "eos_token": "<SPECIAL_12>", "unk_token": "<unk>"},
    "nas-tiny": {"bos_token": LLAMA_SPECIALS[0], "eos_token": "<|eot_id|>"},
}


def corpus(name: str) -> list[str]:
    """Conversations as they are asked, with thoughts; what the merges are learnt from."""
    rng = random.Random(3)
    texts = []
    for n in range(6000):
        problem = task.draw(rng, held_out=False)
        messages = chat.messages_of(rng, name, problem.question, n % 3 > 0, [])
        texts.append(chat.FAMILIES[name].prompt(messages) + problem.thoughts.split("\n")[0] + "\n" + chat.CLOSE)
    return texts


def train(name: str) -> Tokenizer:
    """The tokenizer of a model."""
    nano = name == "nano2-tiny"
    first, last = (NANO_SPECIALS, []) if nano else ([], LLAMA_SPECIALS)
    tokenizer = Tokenizer(models.BPE(ignore_merges=not nano))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(NANO_SPLIT if nano else LLAMA_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shapes.VOCABULARY - len(last),
        special_tokens=[special(t) for t in first],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Special tokens are no text to learn merges from.
    plain = str.maketrans({"|": " "})
    texts = [t.replace("<SPECIAL_", " ").translate(plain) for t in corpus(name)]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([special(t) for t in last])
    if not nano:
        bos = LLAMA_SPECIALS[0]
        frame = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), frame])
    return tokenizer


def special(text: str) -> AddedToken:
    return AddedToken(text, special=True, normalized=False)


def write(folder: Path, name: str) -> None:
    """Writes tokenizer.json and tokenizer_config.json with the chat template."""
    tokenizer = train(name)
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {
        str(i): {
            "content": t.content,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for i, t in sorted(tokenizer.get_added_tokens_decoder().items())
    }
    settings = {
        "added_tokens_decoder": added,
        **SPECIALS[name],
        "chat_template": chat.FAMILIES[name].template,
        "clean_up_tokenization_spaces": False,
        "model_max_length": shapes.CONTEXT,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    text = json.dumps(settings, indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def open_folder(folder: Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
