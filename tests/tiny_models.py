"""Tiny random-weight models with real tokenizers, built locally: no hub, no download, a second each."""

from __future__ import annotations

from pathlib import Path

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = [f"{a} + {b} = {a + b}\n" for a in range(30) for b in range(30)] + [
    "the quick brown fox jumps over the lazy dog"
]


def build_tokenizer(folder: Path, *, chat: bool) -> None:
    """A byte-level BPE. `chat`: ChatML, eos = pad = <|im_end|>, no BOS. Otherwise: plain text, <s>, </s>, no pad."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"] if chat else ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if not chat:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    names = (
        {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"} if chat else {"bos_token": "<s>", "eos_token": "</s>"}
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    if chat:
        fast.chat_template = CHATML
    fast.save_pretrained(folder)


def build_model(folder: Path, *, chat: bool = True, seed: int = 0, context: int = 256) -> Path:
    """Save a two-layer Llama with random weights (about 100,000 parameters) and its tokenizer; return the folder."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    build_tokenizer(folder, chat=chat)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return folder
