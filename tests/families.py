"""Tokenizers of the families that people train, built locally after the originals, each with a tiny model of its kind.

What differs between them: whether a text begins with BOS, whether a space is put before it and stripped again, how
bytes are written, which token ends a turn, whether that is EOS, and whether there is a template at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny_models import CHATML, CORPUS

LLAMA_3 = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}[INST] {{ message['content'] }} "
    "[/INST]{% else %} {{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n{{ message['content'] | trim }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# Reasons unless told not to; an answer in the history is shown without its reasoning.
THINKING = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'].split('</think>')[-1].lstrip('\n') }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '\n</think>\n\n' }}{% endif %}{% endif %}"
)
BYTES = [f"<0x{number:02X}>" for number in range(256)]
TEXTS = [*CORPUS, "[INST] [/INST] user model assistant", "naïve, tiny 日本 words"]


@dataclass(frozen=True)
class Family:
    """`tokenizer` builds it; `kind` names the model classes of transformers. `stops` are the tokens that end an answer,
    `end` the one that a written answer ends with, `bos` what every prompt begins with, once."""

    tokenizer: Callable[[], Any]
    kind: str
    stops: tuple[str, ...]
    end: str
    bos: str | None = None
    names: dict[str, str] = field(default_factory=dict)
    template: str | None = None
    generation_eos: tuple[str, ...] = ()
    knobs: dict[str, Any] = field(default_factory=dict)
    plain_tokens: tuple[str, ...] = ()

    @property
    def format(self) -> str:
        return "text" if self.template is None else "chat"


def byte_level(specials: list[str], *, bos: str | None = None, nfc: bool = False) -> Any:
    """BPE over bytes, as GPT-2, Llama 3 and Qwen have it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=320, special_tokens=specials, initial_alphabet=alphabet, show_progress=False),
    )
    return beginning_with(tokenizer, bos)


def pieces(specials: list[str], *, prefix_space: bool, bos: str | None) -> Any:
    """BPE over characters in SentencePiece's way: spaces are part of words, what is unknown is written in bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first" if prefix_space else "never")
    trained.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=120, show_progress=False))
    learned = json.loads(trained.to_str())["model"]
    words = sorted(learned["vocab"], key=learned["vocab"].get)
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys([*specials, *BYTES, *words]))}
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    strip = [decoders.Strip(" ", 1, 0)] if prefix_space else []
    if prefix_space:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    tokenizer.add_special_tokens(specials)
    return beginning_with(tokenizer, bos)


def unigram() -> Any:
    """A unigram model that puts a space before every text and EOS after it, as T5 and XLNet do."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(
        TEXTS, trainers.UnigramTrainer(vocab_size=90, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False)
    )
    learned = [tuple(piece) for piece in json.loads(trained.to_str())["model"]["vocab"][1:]]
    specials = ["<unk>", "<pad>", "</s>"]
    words = [*((name, 0.0) for name in specials), *((byte, -20.0) for byte in BYTES), *learned]
    tokenizer = Tokenizer(models.Unigram(words, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", tokenizer.token_to_id("</s>"))]
    )
    return tokenizer


def beginning_with(tokenizer: Any, bos: str | None) -> Any:
    from tokenizers import processors

    if bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return tokenizer


FAMILIES = {
    "Qwen": Family(
        lambda: byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], nfc=True),
        kind="Qwen2",
        names={"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
        template=CHATML,
        stops=("<|endoftext|>", "<|im_end|>"),
        end="<|im_end|>",
    ),
    "Llama 3": Family(
        lambda: byte_level(
            [
                "<|begin_of_text|>",
                "<|end_of_text|>",
                "<|start_header_id|>",
                "<|end_header_id|>",
                "<|eot_id|>",
                "<|eom_id|>",
            ],
            bos="<|begin_of_text|>",
        ),
        kind="Llama",
        names={"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
        template=LLAMA_3,
        generation_eos=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
        stops=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
        end="<|eot_id|>",
        bos="<|begin_of_text|>",
    ),
    "Mistral": Family(
        lambda: pieces(["<unk>", "<s>", "</s>"], prefix_space=True, bos="<s>"),
        kind="Mistral",
        names={"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        template=MISTRAL,
        stops=("</s>",),
        end="</s>",
        bos="<s>",
        knobs={"sliding_window": None},
    ),
    "Gemma": Family(
        lambda: pieces(
            ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"], prefix_space=False, bos="<bos>"
        ),
        kind="Gemma",
        names={"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"},
        template=GEMMA,
        generation_eos=("<eos>", "<end_of_turn>"),
        stops=("<eos>", "<end_of_turn>"),
        end="<end_of_turn>",
        bos="<bos>",
        knobs={"head_dim": 16, "tie_word_embeddings": True},
    ),
    "GPT-2": Family(
        lambda: byte_level(["<|endoftext|>"]),
        kind="GPT2",
        names=dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
        stops=("<|endoftext|>",),
        end="<|endoftext|>",
        knobs={"n_positions": 256, "n_embd": 64, "n_layer": 2, "n_head": 4, "tie_word_embeddings": True},
    ),
    "Unigram": Family(
        unigram,
        kind="Llama",
        names={"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
        stops=("</s>",),
        end="</s>",
    ),
    "Qwen 3": Family(
        lambda: byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
        kind="Qwen3",
        names={"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        template=THINKING,
        stops=("<|im_end|>",),
        end="<|im_end|>",
        knobs={"head_dim": 16},
        plain_tokens=("<think>", "</think>"),
    ),
}


def build_family(folder: Path, family: Family, *, seed: int = 0) -> Path:
    """Save a two-layer model of that kind, with random weights, and its tokenizer; return the folder."""
    import torch
    import transformers

    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=family.tokenizer(), **family.names)
    fast.chat_template = family.template
    fast.add_tokens(list(family.plain_tokens))
    fast.save_pretrained(folder)
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
    }
    config = getattr(transformers, f"{family.kind}Config")(
        vocab_size=len(fast),
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        **({} if family.kind == "GPT2" else sizes) | family.knobs,
    )
    model_class = getattr(transformers, f"{family.kind}{'LMHeadModel' if family.kind == 'GPT2' else 'ForCausalLM'}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config)
    if family.generation_eos:
        model.generation_config.eos_token_id = fast.convert_tokens_to_ids(list(family.generation_eos))
    model.save_pretrained(folder)
    return folder
