"""Looking into a run (`show`): its rounds and funnels, a round's prompts and candidates, everything of one prompt.

Reads what is committed and, of a phase at work, the blocks that are published already. No torch; pyarrow only where
candidates are asked for.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from selftrain import controls
from selftrain.arms import Arm, arms_of
from selftrain.errors import ConfigError, DataError
from selftrain.estimates.work import shared
from selftrain.history import ALARMS_FILE
from selftrain.intact import verified_file
from selftrain.outlook import PHASE_FILES, config_of, round_rows_of, status_of
from selftrain.reasons import reason_kind
from selftrain.records import Receipt
from selftrain.store import TEMPORARY, RunDirectory, read_jsonl
from selftrain.summaries import funnel_words, right_words, verdict_of

CANDIDATE_COLUMNS = ("id", "prompt_id", "index", "wave", "text", "reasoning", "finish_reason", "completion_token_ids")
SCORE_COLUMNS = ("candidate_id", "value", "correct", "answer", "explanation", "parts", "error", "extras")
PHASE_OF = {"candidates": "sample", "scores": "score", "survivors": "select"}
MATCHES_NAMED = 8
COMMONEST = 5
SHOWN_OF_EACH = 5


def show_run(
    path: Path,
    *,
    arm: str,
    round_number: int | None,
    prompt: str | None,
    kept: bool,
    rejected: bool,
    limit: int | None,
    as_json: bool,
) -> None:
    """Print the run, one of its rounds (`limit` candidates of each kind, 5 unless set), or one of its prompts. Raises
    ConfigError for what is not there."""
    from selftrain.reporting import showing as page
    from selftrain.reporting.terminal import Terminal

    if kept and rejected:
        raise ConfigError("--kept and --rejected leave nothing to show; give one of them, or neither")
    of_round = prompt is None and (round_number is not None or kept or rejected)
    if limit is not None and not of_round:
        why = "all candidates of the prompt are shown" if prompt is not None else "no candidates are shown"
        raise ConfigError(f"--limit has no effect where {why}; leave it out, or ask for a round with --round N")
    status = status_of(path)
    run = Run(path, arm)
    if prompt is not None:
        rounds = run.rounds() if round_number is None else [run.require(round_number)]
        data = _of_prompt(run, rounds, prompt)
        data["candidates"] = [one for one in data["candidates"] if _is_asked_for(one, kept, rejected)]
        lines = page.prompt_lines(data)
    elif of_round:
        number = run.require(round_number) if round_number is not None else run.last_selected()
        data = _of_round(run, number, limit or SHOWN_OF_EACH, kept=kept, rejected=rejected)
        lines = page.round_lines(data)
    else:
        data = {"status": status, "selections": _selections(path), "alarms": _alarms(path)}
        lines = page.run_lines(data, round_rows_of(path))
    if as_json:
        print(json.dumps(data, indent=1))
    else:
        Terminal().page(lines)


def _is_asked_for(candidate: Mapping[str, Any], kept: bool, rejected: bool) -> bool:
    return not (kept and not candidate["kept"]) and not (rejected and candidate["kept"] is not False)


# The run


def _selections(path: Path) -> list[dict[str, Any]]:
    """The funnel of each selection, and the commonest reasons why candidates left."""
    run, found = RunDirectory(path), []
    for receipt in run.receipts():
        if receipt.phase != "select":
            continue
        reasons: Counter[str] = Counter()
        for name in receipt.files:
            if name.endswith("/rejected.jsonl"):
                rows = read_jsonl(verified_file(run, receipt, name))
                reasons.update(reason_kind(row["why"]) for row in rows)
        found.append(
            {
                "arm": receipt.arm,
                "round": receipt.round,
                "funnel": funnel_words(receipt.metrics),
                "reasons": dict(reasons.most_common(COMMONEST)),
            }
        )
    return found


def _alarms(path: Path) -> list[dict[str, Any]]:
    run, found = RunDirectory(path), []
    for receipt in run.receipts():
        for name in receipt.files:
            if name.endswith(f"/{ALARMS_FILE}"):
                rows = read_jsonl(verified_file(run, receipt, name))
                found += [{"arm": receipt.arm, "round": receipt.round, **row} for row in rows]
    return found


# Rounds and candidates


class Run:
    """The files of one arm of a run. Raises ConfigError where the run has no such arm."""

    def __init__(self, path: Path, arm: str) -> None:
        self.path = path
        self.run = RunDirectory(path)
        arms = {one.name: one for one in arms_of(config_of(path))}
        if arm not in arms:
            raise ConfigError(f"{path} has no arm {arm!r}; its arms: {', '.join(arms)}")
        self.arm: Arm = arms[arm]

    def has(self, number: int, kind: str) -> bool:
        """Whether there are `candidates`, `scores` or `survivors` of a round, committed or as far as they are made."""
        return self._place(number, kind) is not None

    def files(self, number: int, kind: str) -> list[Path]:
        """Those files: the arm's own, or main's where they are shared; empty where there are none yet.

        Raises DataError for committed ones that are missing or damaged.
        """
        place = self._place(number, kind)
        if isinstance(place, Receipt):
            return self.run.verified(place)
        return list(_files(place)) if place is not None else []

    def _place(self, number: int, kind: str) -> Receipt | Path | None:
        """What made them, if it is committed; else the folder of those that are published already."""
        for arm in (self.arm, self.arm.main):
            if arm is None or (arm is not self.arm and not self._may_share(number, kind)):
                continue
            receipt = self.run.receipt(arm.key(number, PHASE_FILES[PHASE_OF[kind]]))
            if receipt is not None:
                return receipt
            folder = self.path / arm.folder(number) / kind
            if any(_files(folder)):
                return folder
        return None

    def _may_share(self, number: int, kind: str) -> bool:
        """Whether main's is what the arm goes on with: once the round is over, what it has not of its own."""
        if self.arm.source is self.arm.main:
            return kind != "survivors"
        if not controls.samples(self.arm):
            return False
        is_over = self.run.receipt_path(self.arm.key(number, "round")).is_file()
        return is_over or not shared(self.arm).is_own(number, PHASE_OF[kind])

    def rounds(self) -> list[int]:
        """The rounds of which there is something to show."""
        config = self.arm.config
        return [
            number
            for number in range(1, config.rounds + 1)
            if self.has(number, "candidates") or self.has(number, "survivors")
        ]

    def require(self, number: int) -> int:
        """The number, if the round has candidates or survivors. ConfigError if it has not."""
        there = self.rounds()
        if number not in there:
            known = f"there are {', '.join(map(str, there))}" if there else "there is none yet"
            raise ConfigError(f"{self.path}: {self.arm.name} has nothing of round {number} to show; {known}")
        return number

    def last_selected(self) -> int:
        """The last round whose survivors are chosen. ConfigError if there is none."""
        chosen = [number for number in self.rounds() if self.has(number, "survivors")]
        if not chosen:
            raise ConfigError(f"{self.path}: {self.arm.name} has not selected yet; give --round for what is sampled")
        return chosen[-1]

    def prompt_texts(self) -> dict[str, str]:
        """The words of every prompt that some round has selected from, by id: also of other arms."""
        found: dict[str, str] = {}
        for receipt in self.run.receipts():
            for name in receipt.files:
                if receipt.phase == "select" and name.endswith("/prompts.jsonl"):
                    rows = read_jsonl(verified_file(self.run, receipt, name))
                    found |= {row["prompt_id"]: row["text"] for row in rows}
        return found

    def candidates(self, number: int) -> list[dict[str, Any]]:
        """All candidates of a round so far, by prompt, with score and fate; of demonstrations, what was trained on."""
        kept, why = self._fates(number)
        if not self.has(number, "candidates"):
            return [_demonstration(row, number) for row in kept.values()]
        scores = {row["candidate_id"]: row for row in _rows(self.files(number, "scores"), SCORE_COLUMNS)}
        is_selected = bool(kept or why)
        found = []
        for row in _rows(self.files(number, "candidates"), CANDIDATE_COLUMNS):
            score = scores.get(row["id"], {})
            is_kept = row["id"] in kept if is_selected else None
            reason = kept[row["id"]]["why"] if row["id"] in kept else why.get(row["id"])
            found.append(
                {
                    "round": number,
                    "candidate_id": row["id"],
                    **{name: row.get(name) for name in CANDIDATE_COLUMNS[1:-1]},
                    "tokens": len(row["completion_token_ids"]),
                    **{name: score.get(name) for name in SCORE_COLUMNS[1:]},
                    **{name: json.loads(score[name]) if score.get(name) else {} for name in ("parts", "extras")},
                    "verdict": verdict_of(self.arm.config.score, score),
                    "kept": is_kept,
                    "why": reason if reason is not None or is_selected else "not selected from yet",
                }
            )
        return sorted(found, key=lambda one: (one["prompt_id"], one["wave"], one["index"]))

    def _fates(self, number: int) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """Survivors of the round by candidate, and why the others left; both empty before it has selected."""
        files = self.files(number, "survivors")
        survivors = _rows(files, ("candidate_id", "prompt_id", "round", "why", "prompt_text", "text", "label_mask"))
        reasons = [path for path in files if path.name == "rejected.jsonl"]
        left = {row["candidate_id"]: row["why"] for path in reasons for row in read_jsonl(path)}
        return {row["candidate_id"]: row for row in survivors if row["round"] == number}, left


def _demonstration(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    absent = dict.fromkeys((*CANDIDATE_COLUMNS[2:-1], *SCORE_COLUMNS[1:]))
    shown = {"verdict": "", "candidate_id": row["candidate_id"], "prompt_id": row["prompt_id"], "text": row["text"]}
    own = {"tokens": sum(row["label_mask"]), "kept": True, "why": row["why"], "prompt": row["prompt_text"]}
    return {"round": number, **absent, **shown, "parts": {}, "extras": {}, **own}


def _of_round(run: Run, number: int, limit: int, *, kept: bool, rejected: bool) -> dict[str, Any]:
    """A round's prompts with their counts, and some of its candidates: kept ones, and others."""
    every, texts = run.candidates(number), run.prompt_texts()
    for one in every:
        one["prompt"] = one.get("prompt") or texts.get(one["prompt_id"])
    prompts = []
    for prompt_id, group in groupby(sorted(every, key=lambda one: str(one["prompt_id"])), lambda one: one["prompt_id"]):
        ones = list(group)
        prompts.append(
            {
                "prompt_id": prompt_id,
                "prompt": ones[0]["prompt"],
                "candidates": len(ones),
                "scored": sum(one["value"] is not None for one in ones),
                "right": sum(bool(one["correct"]) for one in ones),
                "kept": sum(bool(one["kept"]) for one in ones),
            }
        )
    wanted = {"kept": [one for one in every if one["kept"]], "rejected": [one for one in every if one["kept"] is False]}
    wanted["waiting"] = [one for one in every if one["kept"] is None]
    hidden = ("rejected", "waiting") if kept else ("kept", "waiting") if rejected else ()
    return {
        "arm": run.arm.name,
        "round": number,
        "right_words": right_words(run.arm.config.score, every),
        "prompts": prompts,
        **{name: _spread(ones, limit) for name, ones in wanted.items() if name not in hidden},
    }


def _spread(candidates: Sequence[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """At most `limit` candidates, of as many prompts as there are: the first of each, then the second, ..."""
    seen: Counter[str] = Counter()
    turns = []
    for one in candidates:
        turns.append((seen[one["prompt_id"]], one))
        seen[one["prompt_id"]] += 1
    return [one for _, one in sorted(turns, key=lambda turn: turn[0])[:limit]]


def _of_prompt(run: Run, rounds: Sequence[int], wanted: str) -> dict[str, Any]:
    """Every candidate of the one prompt that has this id, or these words in its text."""
    texts = run.prompt_texts()
    every = [one for number in rounds for one in run.candidates(number)]
    texts = {one["prompt_id"]: one.get("prompt") or texts.get(one["prompt_id"], "") for one in every}
    matches = matching(texts, wanted)
    if not matches:
        raise ConfigError(
            f"no prompt of {run.arm.name} in {run.path} has the id {wanted!r} or contains it; --round 1 lists "
            "its prompts (their words are known once a round has selected)"
        )
    if len(matches) > 1:
        raise ConfigError(no_single_match(wanted, matches, texts))
    found = [one for one in every if one["prompt_id"] == matches[0]]
    return {
        "arm": run.arm.name,
        "prompt_id": matches[0],
        "prompt": texts[matches[0]] or None,
        "candidates": sorted(found, key=lambda one: one["round"]),
    }


def matching(texts: Mapping[str, str], wanted: str) -> list[str]:
    """The ids that `wanted` may mean, of prompts by id: its own, or those with these words in their text; the one with
    no other words alone."""
    if wanted in texts:
        return [wanted]
    matches = [name for name, text in texts.items() if wanted.casefold() in text.casefold()]
    exact = [name for name in matches if texts[name].strip() == wanted.strip()]
    return exact if len(exact) == 1 else matches


def no_single_match(wanted: str, matches: Sequence[str], texts: Mapping[str, str]) -> str:
    """What to say where several prompts match."""
    named = "; ".join(f"{name} ({texts[name][-60:]!r})" for name in matches[:MATCHES_NAMED])
    more = f"; and {len(matches) - MATCHES_NAMED} more" if len(matches) > MATCHES_NAMED else ""
    return f"{len(matches)} prompts contain {wanted!r}; give more of the text, or an id: {named}{more}"


# Files


def _files(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.glob("**/*")) if path.is_file() and TEMPORARY not in path.name)


def _rows(paths: Iterable[Path], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of all tables among the files, with those of the columns that they have. DataError for a damaged one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in paths:
        if path.suffix != ".parquet":
            continue
        try:
            there = pq.read_schema(path).names
            yield from pq.read_table(path, columns=[name for name in columns if name in there]).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path} is not readable: {error}") from error
