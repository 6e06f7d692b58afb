"""The bench: the base model and tokenizer of a run, loaded once per process, and the adapter mounted on it."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging

from selftrain.adapters import adapter_digest
from selftrain.config import ModelConfig
from selftrain.errors import ConfigError, DataError, PhaseError
from selftrain.models.adopted import adopt
from selftrain.models.devices import device_of
from selftrain.models.pristine import Pristine
from selftrain.models.quantized import quantizing, require_quantizable
from selftrain.models.sources import Source, locate
from selftrain.models.turns import computing, loading
from selftrain.records import Digest, Policy, Prompt
from selftrain.whereabouts import cache_dir as default_cache_dir

SENTINEL = "sentinel"
ANCHOR = "a"


class Bench:
    """The base model and tokenizer of a run, loaded once per process; adapters are mounted, never merged.
    `where` is the knob that names the model, for messages.

    Nothing is loaded by the constructor: the tokenizer is at its first use, the weights are at the first `mount`.
    """

    def __init__(self, config: ModelConfig, *, cache_dir: Path | None = None, where: str = "model.path") -> None:
        self.config = config
        self._where = where
        self.adopted: set[str] = set()
        """Folders of more adapters that were trained elsewhere."""
        self._cache_dir = cache_dir or default_cache_dir()
        self._model: Any = None
        self._pristine: Pristine | None = None
        self._mounted: Digest | None = None
        self._view: Any = None
        self._is_away = False

    @cached_property
    def source(self) -> Source:
        """Where the model was found. A GGUF file is converted here, once per machine."""
        require_quantizable(self.config, self.device)
        return locate(self.config, self._cache_dir, self._where)

    @property
    def digest(self) -> Digest:
        """Identity of weights, tokenizer and chat template: a GGUF file's hash, a hub commit, or a folder's files.

        Of weight files over 1 GiB in a local folder only header, size and sampled chunks are hashed
        (`contents.folder_digest`).
        """
        return self.source.digest

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer alone; the weights stay on disk. ConfigError: there is none that can be read."""
        with self._reading("no tokenizer", "save the model's own beside its weights, by save_pretrained"):
            return AutoTokenizer.from_pretrained(self.source.path, **self._origin)

    @cached_property
    def device(self) -> torch.device:
        """Where the weights go: as `model.device` says (`devices.device_of`)."""
        return device_of(self.config.device)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Of the weights: as `model.dtype` says; `auto` is float32 on CPU, the checkpoint's own elsewhere. Of quantized
        ones, what they are computed in: `auto` is bfloat16."""
        if self.config.dtype != "auto":
            return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[self.config.dtype]
        if self.config.quantization is not None:
            return torch.bfloat16
        if self.device.type == "cpu":
            return torch.float32
        return self._text_config.dtype or torch.float32

    @property
    def context_length(self) -> int:
        """Longest sequence, prompt and completion together, in tokens."""
        return int(self._text_config.max_position_embeddings)

    @property
    def attends_to_all(self) -> bool:
        """Whether every layer attends to everything before, so that what sequences share may be computed once for all
        of them, with padding between it and the rest.

        A sliding window counts columns, padding included; recurrent layers have no columns at all.
        """
        knobs = vars(self._text_config)
        kinds = set(knobs.get("layer_types") or ()) or {"full_attention"}
        windowed = "layer_types" not in knobs and knobs.get("sliding_window") is not None
        return kinds == {"full_attention"} and not windowed

    @cached_property
    def stop_token_ids(self) -> tuple[int, ...]:
        """The ids that end a turn, sorted: of the generation config, the tokenizer, and the chat template.

        Read from the files, not from the loaded model: a transformers Trainer rewrites the model's own stop ids when
        training starts, and round 1 would stop at other tokens than round 0.
        """
        try:
            generation = GenerationConfig.from_pretrained(self.source.path, revision=self.source.revision)
        except OSError:
            generation = GenerationConfig.from_model_config(self._model_config)
        ids = generation.eos_token_id
        found = set(ids if isinstance(ids, list) else [] if ids is None else [ids])
        found.add(self.tokenizer.eos_token_id)
        found.add(self._end_of_turn)
        return tuple(sorted(one for one in found if one is not None))

    def end_of_answer(self, prompt: Prompt) -> int | None:
        """The stop token that ends an answer to this prompt: the chat template's after messages, EOS after a text."""
        template, eos = self._end_of_turn, self.tokenizer.eos_token_id
        first, second = (template, eos) if prompt.messages is not None else (eos, template)
        return first if first is not None else second

    def render(self, prompt: Prompt) -> tuple[int, ...]:
        """The prompt as token ids: messages by the chat template, up to where the assistant speaks; text as it is."""
        if prompt.messages is not None:
            messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
            self._require_chat_template()
            ids = self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=False, **self.config.chat_template_kwargs
            )
        else:
            ids = self.encode(prompt.text or "")
        if not ids:
            raise DataError(f"prompt {prompt.id} renders to no tokens (text {prompt.text!r}); give it some text")
        return tuple(ids)

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of a text that may go on: with BOS where the tokenizer puts one before texts, never with EOS."""
        # A text that was rendered elsewhere starts with BOS already; two of them are a distribution of their own.
        bos = self.tokenizer.bos_token
        ids = self.tokenizer(text, add_special_tokens=not (bos and text.startswith(bos)))["input_ids"]
        eos = self.tokenizer.eos_token
        if ids and ids[-1] == self.tokenizer.eos_token_id and not text.endswith(eos):
            ids = ids[:-1]  # some tokenizers end every text
        return tuple(ids)

    @cached_property
    def hidden_token_ids(self) -> frozenset[int]:
        """The ids that `decode` skips: special tokens, but for those that the tags of `model.thinking` are made of."""
        tags = self.config.thinking
        shown = (tags.open, tags.close) if tags is not None else ()
        special = (
            (number, token.content) for number, token in self.tokenizer.added_tokens_decoder.items() if token.special
        )
        return frozenset(number for number, content in special if not any(content in tag for tag in shown))

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of the ids: hidden ones skipped, spaces left as they are."""
        ids = [number for number in token_ids if number not in self.hidden_token_ids]
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def decode_after(self, token_ids: Sequence[int]) -> str:
        """The text of ids that stand after others. Tokenizers in SentencePiece's way strip a space at the start of what
        they decode, which in the middle of a sequence is part of the text."""
        before, ids = self._anchor
        both = self.decode([*ids, *token_ids])
        return both.removeprefix(before) if both.startswith(before) else self.decode(token_ids)

    def mount(self, policy: Policy, *, trainable: bool = False) -> torch.nn.Module:
        """The model with the policy's adapter on it; the base model itself where the policy has none.

        In eval mode unless `trainable`. Loads the base at first use, unmounts any other adapter, and does nothing when
        the same digest is mounted already. PhaseError when the folder's adapter is not the policy's.
        """
        if policy.adapter is None:
            return self.unmount()
        if self._mounted == policy.digest and not trainable:
            self._come_back()
            return self._view  # type: ignore[no-any-return]
        folder = Path(policy.adapter)
        found = adapter_digest(folder)
        if found != policy.digest:
            raise PhaseError(
                f"the adapter in {folder} has digest {found[:12]}, the policy of round {policy.round} needs "
                f"{policy.digest[:12]}: the folder was changed; restore it, or delete its round and run again"
            )
        base = self.unmount()

        def mounted() -> Any:
            with computing(), warnings.catch_warnings():
                # peft 0.21 asks for a property that transformers 5.23 renamed; nothing of ours can.
                warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
                return PeftModel.from_pretrained(base, folder, is_trainable=trainable)

        self._view = adopt(folder, self.config.path, mounted) if self.is_adopted(policy) else mounted()
        self._view.train(trainable)
        # What is trained is no longer what the digest names, so it is never taken for mounted.
        self._mounted = None if trainable else policy.digest
        return self._view  # type: ignore[no-any-return]

    def is_adopted(self, policy: Policy) -> bool:
        """Whether the policy's adapter is that of `model.adapter`, or another in `adopted`, trained elsewhere."""
        return policy.adapter is not None and (policy.adapter == self.config.adapter or policy.adapter in self.adopted)

    def unmount(self) -> torch.nn.Module:
        """The pristine base model, whatever was mounted on it or trained in it, by whom ever."""
        if self._model is None:
            self._load()
        self._come_back()
        assert self._pristine is not None
        self._pristine.restore()
        self._mounted = self._view = None
        return self._model  # type: ignore[no-any-return]

    @property
    def is_loaded(self) -> bool:
        """Whether the weights take the device's memory."""
        return self._model is not None and not self._is_away

    def release(self) -> None:
        """Free the device's memory: weights of an accelerator wait in the machine's, with the adapter on them; those of
        a CPU, and quantized ones, are dropped and loaded again at the next `mount`. Whoever holds the model that
        `mount` gave must let go of it, and mount anew."""
        if not self.is_loaded:
            return
        if self.device.type == "cpu" or self.config.quantization is not None:
            self._model = self._pristine = self._mounted = self._view = None
        else:
            self._model.to("cpu")
            self._is_away = True
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _come_back(self) -> None:
        if self._is_away:
            self._model.to(self.device)
            self._is_away = False

    @property
    def _origin(self) -> dict[str, Any]:
        return {"revision": self.source.revision, "trust_remote_code": self.config.trust_remote_code}

    @cached_property
    def _model_config(self) -> Any:
        with self._reading("no config.json", "save the model again, by save_pretrained"):
            return AutoConfig.from_pretrained(self.source.path, **self._origin)

    @property
    def _text_config(self) -> Any:
        return self._model_config.get_text_config()

    def _load(self) -> None:
        transformers_logging.disable_progress_bar()
        try:
            with loading():
                model, found = AutoModelForCausalLM.from_pretrained(
                    self.source.path,
                    dtype=self.dtype,
                    attn_implementation=self.config.attn_implementation,
                    use_safetensors=True,
                    output_loading_info=True,
                    **quantizing(self.config, self.device, self.dtype),
                    **self._origin,
                )
        except OSError as error:
            raise ConfigError(
                f"{self._where}: no weights could be loaded from {self.config.path!r}: {str(error).splitlines()[0]}; "
                "only safetensors weights are read"
            ) from error
        # Of tied weights only the first name is a parameter; buffers are computed.
        if missing := sorted({name for name, _ in model.named_parameters()} & set(found["missing_keys"])):
            raise ConfigError(
                f"{self._where}: {self.config.path!r} has no weights for {', '.join(missing[:3])}, which would be "
                "random: it was not saved as a model that writes text; give one that was (a ...ForCausalLM)"
            )
        self._model = (model if self.config.quantization is not None else model.to(self.device)).eval()
        self._pristine = Pristine(self._model)

    @contextmanager
    def _reading(self, lacking: str, remedy: str) -> Iterator[None]:
        """ConfigError in place of what transformers raises of files that are missing or broken."""
        source = self.source
        try:
            yield
        except (OSError, ValueError, KeyError, TypeError) as error:
            said = (str(error).splitlines() or [""])[0]
            raise ConfigError(
                f"{self._where}: {lacking} could be read from {source.path!r}: {type(error).__name__}: {said}; {remedy}"
            ) from error

    def _require_chat_template(self) -> None:
        if self.tokenizer.chat_template is None:
            raise ConfigError(
                f"the tokenizer of {self.config.path!r} has no chat template, so messages cannot be rendered; "
                "set prompts.format=text"
            )

    @cached_property
    def _anchor(self) -> tuple[str, tuple[int, ...]]:
        """Some text, and its ids."""
        ids = tuple(self.tokenizer(ANCHOR, add_special_tokens=False)["input_ids"])
        return self.decode(ids), ids

    @cached_property
    def _end_of_turn(self) -> int | None:
        """The first special token after an assistant's words, as the chat template writes them."""
        if self.tokenizer.chat_template is None:
            return None
        turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": SENTINEL}]
        text = self.tokenizer.apply_chat_template(turns, tokenize=False, **self.config.chat_template_kwargs)
        after = self.tokenizer(text.rpartition(SENTINEL)[2], add_special_tokens=False)["input_ids"]
        special = {number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return next((number for number in after if number in special), None)
