"""The trained verifier: LoRA on pairs of right and wrong candidates by TRL's DPOTrainer, on the sampled ids.

Its reference is where it starts, the policy of round 0. What that gives to each answer is read once, before training,
however many pairs the answer is in. The loss is the mean over the pairs of a step's batch, however ranks and
micro-batches share it; by default -log sigmoid(beta x difference of log-ratios) (DPO, Rafailov et al. 2023, arXiv
2305.18290, equation 7).
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer

from selftrain.config import VerifierConfig
from selftrain.errors import PhaseError
from selftrain.models import Bench, token_logprobs
from selftrain.records import Digest, Pair, Policy, Training, digest
from selftrain.training import lora
from selftrain.training.arguments import settings_of_pairs
from selftrain.training.checkpoints import find, key_of
from selftrain.training.examples import IGNORED, ExampleOrder
from selftrain.training.fields import check_verifier
from selftrain.training.joined import Trimming
from selftrain.training.pairs import require_trainable
from selftrain.training.steps import OnStep, Steps
from selftrain.world import World

# The columns of a row: ids, and the log-probabilities of both answers under the reference.
_IDS = ("prompt_ids", "chosen_ids", "rejected_ids")
FILLER = "is_filler"


class VerifierTrainer:
    """Trains a LoRA adapter on pairs; leaves the bench's model, its tokenizer and the global RNGs as they were."""

    def __init__(self, bench_factory: Callable[[], Bench]) -> None:
        self._bench_factory = bench_factory

    def train(
        self,
        pairs: Sequence[Pair],
        *,
        start: Policy,
        out: Path,
        work: Path,
        config: VerifierConfig,
        seed: int,
        should_stop: Callable[[], bool],
        on_step: OnStep,
        world: World,
    ) -> Training:
        """Train on the pairs from `start`, which is the reference too, and write the adapter to `out`.

        As `training.Trainer.train` says of folders, resuming, ranks and errors. Beside the metrics of `Steps`, a step
        has `train/margin`, the mean difference of the pairs' implicit rewards, and `train/accuracy`, the share of pairs
        whose right answer has the higher one: TRL's figures, before the step's update.
        """
        check_verifier(config, ranks=world.size)
        bench = self._bench_factory()
        require_trainable(pairs, bench.context_length)
        began = time.perf_counter()
        key = _key(pairs, start, config, seed, ranks=world.size)
        world.require_agreement("what the verifier is trained on", key)
        found = world.from_first(lambda: find(work, key), "looking for a checkpoint")
        reference = _reference(bench, start, pairs, world)

        def make(model: Any) -> tuple[Any, Steps]:
            trainer = _make_trainer(model, pairs, reference, work, config, bench, seed, world)
            return trainer, _PairSteps(trainer, work, key, config, found, should_stop, on_step, world)

        done = lora.trained(
            bench,
            start,
            config,
            make,
            section="verifier",
            out=out,
            seed=seed,
            examples=len(pairs),
            found=found,
            began=began,
            world=world,
        )
        last = {name: done.steps[-1][name] for name in ("train/margin", "train/accuracy")}
        return replace(done, metrics={**done.metrics, **last})


def _key(pairs: Sequence[Pair], start: Policy, config: VerifierConfig, seed: int, *, ranks: int) -> Digest:
    examples = [[one.prompt_token_ids, one.chosen_token_ids, one.rejected_token_ids] for one in pairs]
    return key_of([digest(examples), "pairs"], start, config.of_training(), seed, ranks=ranks)


def _sides(pair: Pair) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return pair.prompt_token_ids + pair.chosen_token_ids, pair.prompt_token_ids + pair.rejected_token_ids


def _reference(bench: Bench, start: Policy, pairs: Sequence[Pair], world: World) -> list[tuple[float, float]]:
    """The log-probabilities of each pair's answers (right, wrong) under the reference. Each answer is read once, by one
    of the ranks."""
    wanted = list({(len(pair.prompt_token_ids), side): None for pair in pairs for side in _sides(pair)})
    mine = wanted[world.rank :: world.size]
    read = token_logprobs(bench, start, [ids for _, ids in mine], scored_from=[first for first, _ in mine])
    sums: dict[tuple[int, tuple[int, ...]], float] = {}
    for rank, part in enumerate(world.gather(list(map(math.fsum, read)), "what the reference says of the pairs")):
        sums |= zip(wanted[rank :: world.size], part, strict=True)
    rows = [[sums[len(pair.prompt_token_ids), side] for side in _sides(pair)] for pair in pairs]
    return [(right, wrong) for right, wrong in rows]


def _make_trainer(
    model: Any,
    pairs: Sequence[Pair],
    reference: Sequence[tuple[float, float]],
    work: Path,
    config: VerifierConfig,
    bench: Bench,
    seed: int,
    world: World,
) -> _PairTrainer:
    with lora.as_config_error("verifier.dpo"):
        arguments = DPOConfig(**settings_of_pairs(work, config, bench, seed, world))
        lora.require_ranks(arguments, world)
        trainer = _PairTrainer(
            model=model,
            args=arguments,
            train_dataset=_dataset(pairs, reference, filler=world.size > 1),
            # A copy: TRL sets a pad token where there is none, and the sampler's tokenizer must stay as it is.
            processing_class=copy.deepcopy(bench.tokenizer),
        )
    trainer.remove_callback(PrinterCallback)
    # TRL keeps a copy of the adapter to read the reference with, which has been read; PEFT would save it as well.
    if "ref" in model.peft_config:
        model.delete_adapter("ref")
    trainer.take(
        ExampleOrder(
            [sum(map(len, _sides(one))) for one in pairs],
            config.batch_size,
            arguments.train_sampling_strategy,
            seed,
            share=world.size * arguments.per_device_train_batch_size if world.size > 1 else 1,
        )
    )
    return trainer


def _dataset(pairs: Sequence[Pair], reference: Sequence[tuple[float, float]], *, filler: bool) -> Dataset:
    """One row per pair, in order; after them a filler row, if asked for, which adds nothing to a loss."""
    shown = [*pairs, pairs[0]] if filler else list(pairs)
    given = [*reference, reference[0]] if filler else list(reference)
    rows = {
        "prompt_ids": [list(one.prompt_token_ids) for one in shown],
        "chosen_ids": [list(one.chosen_token_ids) for one in shown],
        "rejected_ids": [list(one.rejected_token_ids) for one in shown],
        "ref_chosen_logps": [right for right, _ in given],
        "ref_rejected_logps": [wrong for _, wrong in given],
        FILLER: [number >= len(pairs) for number in range(len(shown))],
    }
    return Dataset.from_dict(rows)


class _PairTrainer(DPOTrainer):  # type: ignore[misc]
    """DPOTrainer on given ids, in our order, that counts tokens and gives every pair of a batch the same weight."""

    data_collator: Any
    # The loss is divided by the pairs of the whole batch here, not by the micro-batches.
    loss_is_scaled_for_ga = True

    def take(self, order: ExampleOrder) -> None:
        """What the constructor has no argument for; called before `train`."""
        self.order = order
        self.trimming = Trimming()
        self.precompute_ref_logps = True
        self.model_accepts_loss_kwargs = True
        self.tally = {"tokens": 0, "input_tokens": 0, "padded_tokens": 0}
        self._collate = self.data_collator
        self.data_collator = self._collate_rows

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: a checkpoint is no publication."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        """As it is. TRL would make ids of texts, and end what ended at a stop string with EOS."""
        return dataset

    def _get_train_sampler(self, train_dataset: Any = None) -> ExampleOrder:
        return self.order

    def _collate_rows(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        pairs = [one for one in rows if not one[FILLER]] or rows[:1]
        batch: dict[str, Any] = self._collate(pairs)
        # What the trainer counts to know the size of the whole batch, over ranks and micro-batches: one per pair.
        weights = torch.tensor([IGNORED if one[FILLER] else 1 for one in pairs])
        return {**batch, "labels": weights, "shift_labels": weights}

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        counted = inputs.pop("labels")
        inputs.pop("shift_labels")
        number = int((counted != IGNORED).sum())
        if number:  # else a filler
            self.tally["tokens"] += int(inputs["completion_mask"].sum())
            self.tally["input_tokens"] += int(inputs["attention_mask"].sum())
        self.tally["padded_tokens"] += inputs["input_ids"].numel()
        if number and inputs["input_ids"].device.type == "cpu" and not self.use_weighting:
            plain = self.accelerator.unwrap_model(model)
            model = _Trimmed(model, plain, self.trimming, self.aux_loss_enabled)
        with _uneven(self.accelerator, number, self.args.per_device_train_batch_size):
            mean = super().compute_loss(model, inputs)
        # DDP takes the mean of the ranks' gradients, but the pairs are counted over all ranks: their sum is wanted.
        return mean * number * self.accelerator.num_processes / num_items_in_batch


@contextlib.contextmanager
def _uneven(accelerator: Any, number: int, most: int) -> Iterator[None]:
    """Within, what TRL gathers of each pair may be of another number of pairs on each rank: of the first `number`, up
    to `most`. Collectives want as many everywhere, and the last batch of an epoch has fillers on some ranks."""
    gather = accelerator.gather

    def gathered(values: Any) -> Any:
        if values.dim() != 1:
            return gather(values)
        filled = torch.full((most,), math.nan, device=values.device)
        filled[:number] = values[:number].float()
        together = gather(filled)
        return together[~together.isnan()]

    if accelerator.num_processes == 1:
        yield
        return
    accelerator.gather = gathered
    try:
        yield
    finally:
        accelerator.gather = gather


class _Trimmed:
    """A model that is given a batch and computes what its loss needs of it; what TRL reads of the others is 0."""

    def __init__(self, model: Any, plain: Any, trimming: Trimming, by_rows: bool) -> None:
        self._model, self._plain, self._trimming, self._by_rows = model, plain, trimming, by_rows

    def __call__(self, **inputs: Any) -> Any:
        tensors = {name: inputs[name] for name in ("input_ids", "attention_mask", "labels")}
        others = {name: value for name, value in inputs.items() if name not in tensors}
        with self._trimming.of(self._plain, tensors, by_rows=self._by_rows) as given:
            outputs = self._model(**given, **others)
        trained = inputs["labels"][:, 1:] != IGNORED
        for name in ("log_probs", "entropy", "mean_logits", "is_top1"):
            of_trained = getattr(outputs, name)[0]
            rows = of_trained.new_zeros(trained.shape)
            setattr(outputs, name, rows.masked_scatter(trained, of_trained))
        return outputs


class _PairSteps(Steps):
    """With what TRL measures of pairs in a step's row."""

    def more(self, logs: Mapping[str, Any]) -> dict[str, float]:
        """Margin and accuracy of the pairs. PhaseError where a margin is not finite."""
        margin, accuracy = float(logs["rewards/margins"]), float(logs["rewards/accuracies"])
        if not math.isfinite(margin):
            raise PhaseError(
                f"the margin of the verifier's pairs is {margin}: training diverged and nothing was published; lower "
                f"verifier.learning_rate (now {self._trainer.args.learning_rate:g})"
            )
        return {"train/margin": margin, "train/accuracy": accuracy}
