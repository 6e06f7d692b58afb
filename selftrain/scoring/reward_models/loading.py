"""The weights of reward models: loaded when something is judged, shared by the scorers that name the same model, and
given back when the memory is wanted."""

from __future__ import annotations

import gc
import threading
import warnings
import weakref
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)
from transformers.utils import logging as transformers_logging

from selftrain.contents import Place, base_of_adapter, place
from selftrain.errors import ConfigError
from selftrain.models.devices import device_of
from selftrain.models.turns import loading

Kind = Literal["sequence", "tokens", "causal"]
_CLASSES: dict[Kind, Any] = {
    "sequence": AutoModelForSequenceClassification,
    "tokens": AutoModelForTokenClassification,
    "causal": AutoModelForCausalLM,
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SAFE = {"use_safetensors": True, "trust_remote_code": False}
_HEADS = (".score.weight", ".classifier.weight", ".classifier.out_proj.weight")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model as a recipe names it: where it is, the adapter on it, the head, and what it is computed with."""

    name: str
    where: Place
    adapter: Path | None
    kind: Kind
    device: str
    dtype: str


class Weights:
    """A loaded model and its tokenizer; `lock` is held by who reads with it or lets it go."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.lock = threading.RLock()
        self._model: Any = None
        self._is_away = False

    @cached_property
    def device(self) -> torch.device:
        """Where it is computed."""
        return device_of(self.wanted.device)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights: `auto` is float32 on a CPU and bfloat16 elsewhere."""
        if self.wanted.dtype == "auto":
            return torch.float32 if self.device.type == "cpu" else torch.bfloat16
        return DTYPES[self.wanted.dtype]

    @cached_property
    def tokenizer(self) -> Any:
        """The adapter's own where its folder has one, or else the model's."""
        adapter, where = self.wanted.adapter, self.wanted.where
        try:
            if adapter is not None and (adapter / "tokenizer_config.json").is_file():
                return AutoTokenizer.from_pretrained(adapter, trust_remote_code=False)
            return AutoTokenizer.from_pretrained(where.path, revision=where.revision, trust_remote_code=False)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"score.scorers: no tokenizer could be read for {self.wanted.name!r}: {type(error).__name__}: "
                f"{(str(error).splitlines() or [''])[0]}; save the model's own beside its weights, by save_pretrained"
            ) from error

    @cached_property
    def context_length(self) -> int:
        """Longest text, in tokens: as the model's positions and its tokenizer have it."""
        config = self.model.config.get_text_config()
        known = (getattr(config, "max_position_embeddings", None), self.tokenizer.model_max_length)
        return min(int(one) for one in known if one is not None and one > 0)

    @property
    def model(self) -> Any:
        """The model, in eval mode on its device; loaded, or fetched from memory, if it is not there."""
        with self.lock:
            if self._model is None:
                with loading():
                    self._model = self._load()
            if self._is_away:
                self._model.to(self.device)
                self._is_away = False
            return self._model

    @property
    def is_loaded(self) -> bool:
        """Whether its weights take the device's memory."""
        return self._model is not None and not self._is_away

    def release(self) -> None:
        """Free the device's memory: weights of an accelerator wait in the machine's, those of a CPU are dropped."""
        with self.lock:
            if self._model is None or self._is_away:
                return
            if self.device.type == "cpu":
                self._model = None
                gc.collect()
                return
            self._model.to("cpu")
            self._is_away = True
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def drop(self) -> None:
        """Forget the model, unless somebody reads with it, who is not waited for."""
        if self.lock.acquire(blocking=False):
            self._model, self._is_away = None, False
            self.lock.release()

    def _load(self) -> Any:
        transformers_logging.disable_progress_bar()
        wanted, labels = self.wanted, {}
        if wanted.adapter is not None and wanted.kind != "causal":
            labels = {"num_labels": labels_of_adapter(wanted.adapter)}
        said = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity_error()  # a missing head is told below, or is in the adapter's folder
        try:
            model, found = _CLASSES[wanted.kind].from_pretrained(
                wanted.where.path,
                revision=wanted.where.revision,
                dtype=self.dtype,
                output_loading_info=True,
                **labels,
                **_SAFE,
            )
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"score.scorers: no model could be loaded from {wanted.name!r}: {str(error).splitlines()[0]}; give a "
                "hub id or the folder of a saved model with safetensors weights"
            ) from error
        finally:
            transformers_logging.set_verbosity(said)
        missing = sorted(found["missing_keys"])
        if wanted.adapter is not None:
            with warnings.catch_warnings():
                # peft 0.21 asks for a property that transformers 5.23 renamed; nothing of ours can.
                warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
                model = PeftModel.from_pretrained(model, wanted.adapter).merge_and_unload()  # it is never trained
            heads = [name for name in missing if "lora" not in name]
            missing = [] if has_head(wanted.adapter) else heads
        if missing:
            raise ConfigError(
                f"score.scorers: {wanted.name!r} has no weights for {', '.join(missing[:3])}, which would be random: "
                "it was not trained as a reward model; give one that was"
            )
        if hasattr(model.config.get_text_config(), "use_cache"):
            model.config.get_text_config().use_cache = False  # nothing is read after what was read
        return model.to(self.device).eval().requires_grad_(False)


def labels_of_adapter(folder: Path) -> int:
    """How many labels the head in an adapter's folder has; 1 where there is none."""
    return next((shape[0] for name, shape in _shapes(folder).items() if name.endswith(_HEADS)), 1)


def has_head(folder: Path) -> bool:
    """Whether an adapter's folder holds the head too."""
    return any(name.endswith(_HEADS) for name in _shapes(folder))


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping


_SHARED: weakref.WeakValueDictionary[Wanted, Weights] = weakref.WeakValueDictionary()
_SHARING = threading.Lock()


def weights_of(wanted: Wanted) -> Weights:
    """The one holder in this process of what is wanted: scorers of the rounds, of arms and of evaluation share it."""
    with _SHARING:
        found = _SHARED.get(wanted)
        if found is None:
            found = _SHARED[wanted] = Weights(wanted)
        return found


def wanted_model(
    name: str,
    base: Path,
    *,
    adapter: str | None,
    revision: str | None,
    kind: Kind,
    device: str,
    dtype: str,
    what: str,
) -> Wanted:
    """What a recipe's names stand for. A folder that holds an adapter is one, on the model that it names; `adapter`
    puts one on another model. Raises ConfigError or DependencyError where they stand for nothing."""
    found = place(name, base, revision=revision, what=what)
    folder = None if adapter is None else Path(place(adapter, base, what=f"{what}: adapter").path)
    if folder is None and found.on_disk is not None:
        under = base_of_adapter(found.on_disk)
        if under is not None:
            folder, found = found.on_disk, place(under, found.on_disk, what=f"{what}: the base of {name}")
    return Wanted(name, found, folder, kind, device, dtype)
