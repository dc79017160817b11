"""Small byte-level BPE tokenizers with the pre-tokenisation and special tokens of each family."""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import corpus
import templates

# The split patterns of the three families.
TEKKEN_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")

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
QWEN_SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def train(split: str, size: int, first: list[str], last: list[str], **model_options) -> Tokenizer:
    """A byte-level BPE of `size` entries, special tokens at the front (`first`) or at the end (`last`)."""
    tokenizer = Tokenizer(models.BPE(**model_options))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(last),
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in first],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus.tokenizer_corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in last])
    return tokenizer


def nano(size: int) -> Tokenizer:
    """Special tokens first, so that <SPECIAL_10..12> have ids 10..12; no BOS is added."""
    return train(TEKKEN_SPLIT, size, NANO_SPECIALS, [])


def llama(size: int) -> Tokenizer:
    """Special tokens last; the post-processor puts <|begin_of_text|> in front."""
    tokenizer = train(LLAMA3_SPLIT, size, [], LLAMA_SPECIALS, ignore_merges=True)
    bos = LLAMA_SPECIALS[0]
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
            ),
        ]
    )
    return tokenizer


def qwen(size: int) -> Tokenizer:
    """Special tokens last, NFC normalisation, no BOS."""
    tokenizer = train(QWEN_SPLIT, size, [], QWEN_SPECIALS)
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


FAMILIES = {
    "nano": (nano, templates.NANO_V2, {"bos_token": "<s>", "eos_token": "<SPECIAL_12>", "unk_token": "<unk>"}),
    "llama": (llama, templates.LLAMA_NEMOTRON, {"bos_token": LLAMA_SPECIALS[0], "eos_token": "<|eot_id|>"}),
    "qwen": (qwen, templates.CHATML, {"bos_token": None, "eos_token": "<|im_end|>"}),
}


def write(folder: Path, family: str, size: int) -> Tokenizer:
    """Writes tokenizer.json and tokenizer_config.json."""
    build, template, specials = FAMILIES[family]
    tokenizer = build(size)
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {
        str(i): {"content": t.content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                 "special": True}
        for i, t in sorted(tokenizer.get_added_tokens_decoder().items())
    }
    settings = {
        "added_tokens_decoder": added,
        **specials,
        "chat_template": template,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
    return tokenizer
