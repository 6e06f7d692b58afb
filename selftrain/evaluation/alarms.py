"""Alarms: signs, in the metrics of a round and of those before it, that self-training goes wrong.

`sample/*` and `score/*` of round r are of the policy that round r - 1 left, `evaluate/*` of round r of the one that
round r left. A rule that needs both takes them of the same policies. Rounds may ask different prompts, so where a rule
compares shares over other prompts, it waits for a change that is larger than the doubt of both: half the width of their
intervals (where none was measured, of Wilson's at 95 %), added as of independent figures.

A metric that was not measured raises no alarm. The thresholds are those of AlarmsConfig.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from selftrain.config import AlarmName, AlarmsConfig

Metrics = Mapping[str, float]
Rounds = Mapping[int, Metrics]
Rule = Callable[[Rounds, int, AlarmsConfig], "str | None"]

# A KL below this is that of the base model to itself, rounding included: nothing to grow from.
_NO_KL = 1e-3
# 0.65 - 0.60 is a little over 0.05 in binary, 0.75 - 0.70 a little under.
_ROUNDING = 1e-9
_Z = 1.96
_NONE: Metrics = {}
# Rules that take the policy of a round for the one that the next round samples from.
_IN_ORDER = ("memorising", "entropy_collapse", "kl_jump")


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm of one round; `words` say in a sentence what was seen, the threshold, and what to try."""

    name: AlarmName
    round: int
    words: str


def raised(rounds: Rounds, config: AlarmsConfig, *, arm_is_main: bool = True) -> list[Alarm]:
    """The alarms of the last of the rounds, in the order of ALARM_NAMES, without those that are off.

    `rounds[r]` holds all metrics of round r of one arm. An arm beside main is not held to `kept_precision`: controls
    keep wrong candidates on purpose. Once a round went on from an earlier policy than the last (`sample/policy_round`),
    the rules that compare one round's policy with the next say nothing more.
    """
    if not rounds:
        return []
    last = max(rounds)
    in_order = all(of.get("sample/policy_round", number - 1) == number - 1 for number, of in rounds.items())
    watched = [name for name in RULES if name not in config.off and (arm_is_main or name != "kept_precision")]
    found = [(name, RULES[name](rounds, last, config)) for name in watched if in_order or name not in _IN_ORDER]
    return [Alarm(name, last, words) for name, words in found if words is not None]


def _no_survivors(rounds: Rounds, last: int, config: AlarmsConfig) -> str | None:
    if rounds[last].get("train/skipped") != 1:
        return None
    if rounds[last].get("select/scored") == 0:
        return "none of the candidates could be scored, so the policy stays as it was; mend what judges them"
    return (
        "there was nothing to train on, so the policy stays as it was; sample more candidates per prompt, ask easier "
        "prompts, or lower select.threshold"
    )


def _truncation(rounds: Rounds, last: int, config: AlarmsConfig) -> str | None:
    rate = rounds[last].get("sample/truncated_rate")
    if rate is None or rate <= config.truncated_rate:
        return None
    return (
        f"{rate:.1%} of the candidates were cut off at sample.max_new_tokens (alarms.truncated_rate "
        f"{config.truncated_rate:.1%}); raise max_new_tokens, or look for answers that do not end"
    )


def _entropy_collapse(rounds: Rounds, last: int, config: AlarmsConfig) -> str | None:
    """Entropy of the policy that the round sampled from, below its share of the first round's; and pass@k of that
    policy, for the largest k there is, below that of the policy before it and clearly below the best so far.

    Low entropy alone is what learning a task with one answer looks like; what pass@k shows is whether answers that the
    policy could find went with it.
    """
    first, entropy = rounds.get(1, _NONE).get("sample/entropy"), rounds[last].get("sample/entropy")
    if last < 2 or first is None or entropy is None or entropy >= config.entropy_share * first:
        return None
    fallen = _fallen_pass_at_k(rounds, last)
    if fallen is None:
        return None
    return (
        f"entropy is {entropy:.3g} nats per token, under {config.entropy_share:.0%} of round 1's {first:.3g} "
        f"(alarms.entropy_share), and {fallen}; sample at a higher temperature, keep fewer candidates of easy prompts "
        "(select.max_per_prompt), or train less per round"
    )


def _fallen_pass_at_k(rounds: Rounds, last: int) -> str | None:
    """Held-out sampled pass@k where it was measured after both rounds; else that of the candidates on their prompts."""
    # Round `last` sampled from the policy that was evaluated in the round before.
    for part, now in ((f"evaluate/{_held_out(rounds[last])}/sampled_pass@", last - 1), ("score/pass@", last)):
        measured = [set(_ks(rounds.get(number, _NONE), part)) for number in (now - 1, now)]
        if not measured[0] & measured[1]:
            continue
        key = f"{part}{max(measured[0] & measured[1])}"
        earlier = [one for number, one in rounds.items() if number < now and key in one]
        best = max(earlier, key=lambda one: one[key])
        value, before = rounds[now][key], rounds[now - 1][key]
        if value < before and best[key] - value > math.hypot(_doubt(best, key), _doubt(rounds[now], key)):
            return f"{key} fell from {before:.1%} to {value:.1%} (best {best[key]:.1%})"
        return None
    return None


def _diversity_falling(rounds: Rounds, last: int, config: AlarmsConfig) -> str | None:
    """Distinct right answers per solved prompt, lower in each of so many rounds than in the one before. Rounds with
    fewer candidates per prompt than the one before are not compared: there they fall by themselves."""
    key, span = "score/distinct_right_per_solved_prompt", range(last - config.diversity_rounds, last + 1)
    seen = [rounds.get(number, _NONE) for number in span]
    values = [one[key] for one in seen if key in one]
    asked = [_ratio(one, "score/candidates", "score/prompts") for one in seen]
    fell = [now < before - _ROUNDING for before, now in pairwise(values)]
    fewer_drawn = [now < before - _ROUNDING for before, now in pairwise(asked)]
    if len(values) < len(seen) or not all(fell) or any(fewer_drawn):
        return None
    if values[-1] > values[0] * (1 - config.diversity_fall) + _ROUNDING:
        return None
    seen_values = ", ".join(f"{value:.2f}" for value in values)
    return (
        f"distinct right answers per solved prompt fell {config.diversity_rounds} rounds in a row ({seen_values}; "
        f"alarms.diversity_rounds, diversity_fall {config.diversity_fall:.0%}); sample at a higher temperature, set "
        "select.dedup, or train from the base model (train.init_from: base)"
    )


def _memorising(rounds: Rounds, last: int, config: AlarmsConfig) -> str | None:
    """Better on what was trained on, no better on held-out prompts. Two ways to see it, neither enough alone.

    Acceptance says something where most of the round's prompts were asked before: it compares the policies that rounds
    `last` and `last` - 1 sampled from, evaluated in the rounds before those. It must have passed the held-out pass@1 of
    its policy: below that, sampled answers draw level with greedy ones, which is sharpening, and no sign of memorising.
    On fresh prompts acceptance is itself a held-out figure. There, the gap between trained and held-out prompts counts,
    of the policies of rounds `last` and `last` - 1, if it grew by more than its doubt: trained prompts are few.
    """
    held_out = f"evaluate/{_held_out(rounds[last])}/pass@1"
    accepted = _change(rounds, "score/correct_rate", last)
    held = _change(rounds, held_out, last - 1)
    again = rounds[last].get("score/prompts_asked_before_rate", 0.0)
    if (
        accepted is not None
        and held is not None
        and again >= 0.5
        and accepted.now > held.now
        and accepted.rise >= config.memorising_rise - _ROUNDING
        and held.rise < config.memorising_flat - _ROUNDING
    ):
        seen = (
            f"acceptance rose from {accepted.before:.1%} to {accepted.now:.1%} on prompts of which {again:.0%} were "
            f"asked before, while {held_out} of the same policies went from {held.before:.1%} to {held.now:.1%}"
        )
        return _memorising_words(seen, config)
    gap, held = _change(rounds, "evaluate/trained_gap", last), _change(rounds, held_out, last)
    if gap is None or held is None:
        return None
    sides = [rounds[number] for number in (last - 1, last)]
    doubt = math.hypot(*(_doubt(one, key) for one in sides for key in ("evaluate/trained/pass@1", held_out)))
    if gap.rise < max(config.memorising_rise - _ROUNDING, doubt) or held.rise >= config.memorising_flat - _ROUNDING:
        return None
    seen = (
        f"pass@1 on trained prompts is {gap.now:.1%} above that on held-out ones, after {gap.before:.1%}, while "
        f"{held_out} went from {held.before:.1%} to {held.now:.1%}"
    )
    return _memorising_words(seen, config)


def _memorising_words(seen: str, config: AlarmsConfig) -> str:
    return (
        f"{seen} (alarms.memorising_rise {config.memorising_rise:.1%}, memorising_flat {config.memorising_flat:.1%}); "
        "ask more or fresh prompts (prompts.per_round), train fewer epochs, or stop here"
    )


def _kept_precision(rounds: Rounds, last: int, config: AlarmsConfig) -> str | None:
    precision = rounds[last].get("select/kept_precision")
    if precision is None or precision >= config.kept_precision - _ROUNDING:
        return None
    middle = rounds[last].get("score/value_p50")
    if middle is not None and middle not in (0.0, 1.0):  # values are graded, and none of them need be wrong
        return (
            f"{precision:.1%} of the survivors have a value of score.correct_at or more (alarms.kept_precision "
            f"{config.kept_precision:.1%}), and the median value of the candidates is {middle:.3g}; set "
            "score.correct_at to what is good enough, or, where no value means right, alarms.kept_precision to 0"
        )
    return (
        f"{precision:.1%} of the survivors are correct (alarms.kept_precision {config.kept_precision:.1%}), and wrong "
        "ones teach their mistakes; use select.rule: threshold, or raise select.threshold"
    )


def _coverage_stalled(rounds: Rounds, last: int, config: AlarmsConfig) -> str | None:
    growth = rounds[last].get("score/coverage_growth")
    if growth is None or growth >= config.coverage_growth - _ROUNDING:
        return None
    coverage = rounds[last].get("score/coverage_cumulative")
    if coverage == 1.0:
        return None  # there was nothing left to solve
    so_far = "" if coverage is None else f" to {coverage:.1%}"
    return (
        f"the share of prompts ever solved grew by {growth:.2%}{so_far} in a round that asked no new prompts "
        f"(alarms.coverage_growth {config.coverage_growth:.2%}); add prompts, sample more candidates per prompt, or "
        "stop here"
    )


def _kl_jump(rounds: Rounds, last: int, config: AlarmsConfig) -> str | None:
    """KL to the base model of the policies that this round and the one before sampled from. From the base model itself,
    which the first round usually samples from, any step is a jump without measure, so nothing is said of it."""
    kl = _change(rounds, "sample/kl_to_base_k3", last)
    if kl is None or kl.before < _NO_KL or kl.now <= config.kl_floor or kl.now < config.kl_ratio * kl.before:
        return None
    return (
        f"KL to the base model went from {kl.before:.3g} to {kl.now:.3g} nats per token in a round (alarms.kl_ratio "
        f"{config.kl_ratio:g}, kl_floor {config.kl_floor:g}); lower train.learning_rate, take fewer steps, or "
        "train from the base model (train.init_from: base)"
    )


def _labels_falling(rounds: Rounds, last: int, config: AlarmsConfig) -> str | None:
    """The avalanche of learning from one's own votes: what most candidates say is wrong more often, is learnt, and is
    said by more of them in the next round."""
    fall = _fallen(rounds, "score/label_accuracy", last, config.label_fall)
    if fall is None:
        return None
    best, before, now = fall
    return (
        f"{now:.1%} of the labels are right, after {before:.1%} in round {best} (alarms.label_fall "
        f"{config.label_fall:.1%}), and wrong ones teach their mistakes to the next round's voters; raise "
        "min_agreement of the scorer majority, ask fresh prompts, train from the base model (train.init_from: base), "
        "or stop here"
    )


def _reward_hacking(rounds: Rounds, last: int, config: AlarmsConfig) -> str | None:
    """A learned reward that no longer follows what it stands for (Gao et al. 2022, arXiv 2210.10760). Of labels that a
    vote gives, `_labels_falling` speaks."""
    fall = _fallen(rounds, "score/truth_share", last, config.truth_fall)
    if fall is None or "score/label_accuracy" in rounds[last]:
        return None
    best, before, now = fall
    value_before, value = (rounds[number].get("score/value_mean", math.nan) for number in (best, last))
    if not value >= value_before - _ROUNDING:
        return None
    return (
        f"{now:.1%} of the candidates are right, after {before:.1%} in round {best} (alarms.truth_fall "
        f"{config.truth_fall:.1%}), while their mean value went from {value_before:.3g} to {value:.3g}: the policy may "
        "be learning what the scorer pays for and not what it stands for; add a gate or another scorer, penalise the "
        "distance to the base model (select.kl_beta), or stop here"
    )


def _fallen(rounds: Rounds, key: str, last: int, least: float) -> tuple[int, float, float] | None:
    """The best round before, its share and the last one's, where that fell by as much and by more than their doubt."""
    earlier = {number: of[key] for number, of in rounds.items() if number < last and key in of}
    now = rounds[last].get(key)
    if now is None or not earlier:
        return None
    best = max(earlier, key=lambda number: earlier[number])
    doubt = math.hypot(_doubt(rounds[best], key), _doubt(rounds[last], key))
    return (best, earlier[best], now) if earlier[best] - now >= max(least - _ROUNDING, doubt) else None


RULES: Mapping[AlarmName, Rule] = {
    "no_survivors": _no_survivors,
    "truncation": _truncation,
    "entropy_collapse": _entropy_collapse,
    "diversity_falling": _diversity_falling,
    "memorising": _memorising,
    "kept_precision": _kept_precision,
    "coverage_stalled": _coverage_stalled,
    "kl_jump": _kl_jump,
    "labels_falling": _labels_falling,
    "reward_hacking": _reward_hacking,
}


@dataclass(frozen=True, slots=True)
class _Change:
    before: float
    now: float

    @property
    def rise(self) -> float:
        return self.now - self.before


def _change(rounds: Rounds, key: str, now: int) -> _Change | None:
    """The metric in a round and in the one before, where both have it."""
    before, after = rounds.get(now - 1, _NONE).get(key), rounds.get(now, _NONE).get(key)
    return None if before is None or after is None else _Change(before, after)


def _held_out(metrics: Metrics) -> str:
    """The set of held-out prompts to go by. Where there is validation, test has no say: an alarm can end a run."""
    return "validate" if "evaluate/validate/pass@1" in metrics else "test"


def _ks(metrics: Metrics, start: str) -> list[int]:
    ends = [key.removeprefix(start) for key in metrics if key.startswith(start)]
    return [int(end) for end in ends if end.isdecimal()]


def _ratio(metrics: Metrics, upper: str, lower: str) -> float:
    return metrics.get(upper, 0.0) / (metrics.get(lower) or 1.0)


def _doubt(metrics: Metrics, key: str) -> float:
    """Half the width of the interval of a share; 0 where not even the number of prompts is known."""
    if f"{key}_low" in metrics and f"{key}_high" in metrics:
        return (metrics[f"{key}_high"] - metrics[f"{key}_low"]) / 2
    share, size = metrics.get(key), metrics.get(f"{key.rpartition('/')[0]}/prompts", 0.0)
    if share is None or size <= 0:
        return 0.0
    z2 = _Z**2
    return _Z / (1 + z2 / size) * math.sqrt(share * (1 - share) / size + z2 / (4 * size**2))
