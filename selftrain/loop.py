"""The loop: rounds of sample, score, select, train, evaluate, for the main arm and then for each of the others.

Nothing here knows whether a phase is done now or was done before, or how many ranks do it: `phases` answers with the
committed result.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from selftrain.arms import Arm, arms_of, names_round
from selftrain.config import Config, resolved
from selftrain.evaluation import decisions
from selftrain.phases import Phases
from selftrain.records import Policy, Report
from selftrain.summaries import round_rows


def run_arms(config: Config, phases: Phases) -> list[Arm]:
    """Run the main arm, then the others; return them with their histories, main first."""
    arms = []
    for arm in arms_of(config):
        train_rounds(config, arm, phases)
        arms.append(arm)
    phases.keeping.at_end(arms)
    phases.commits.bring_back(best_policy(arms[0]))
    return arms


def train_rounds(config: Config, arm: Arm, phases: Phases) -> Policy:
    """All rounds of one arm; return its best policy."""
    arm.policies[0] = phases.rooms.base_policy
    measure(config, arm, phases, 0)
    for round_number in rounds_of(config, arm):
        started, busy = time.monotonic(), phases.busy_seconds()
        policy, start = built_upon(config, arm, round_number), start_of(config, arm, round_number)
        if policy.round < round_number - 1 and arm.main is None:
            phases.terminal.info(
                f"{arm.name} · round {round_number} goes on from round {policy.round}: the round before fell more than "
                f"stop.max_regression {config.stop.max_regression:g} below it on validation"
            )
        scored = phases.gather(arm, round_number, policy)
        survivors = phases.select(arm, round_number, scored)
        arm.policies[round_number] = phases.train(arm, round_number, survivors, start=start, otherwise=policy)
        measure(config, arm, phases, round_number)
        if phases.finish_round(arm, round_number, seconds=time.monotonic() - started, busy_before=busy):
            phases.terminal.round_table(arm.name, round_number, list(round_rows(arm, round_number)))
        phases.keeping.after_round(arm, round_number)
        if should_stop(config, arm, phases, round_number):
            break
    measure_last(config, arm, phases)
    return best_policy(arm)


def rounds_of(config: Config, arm: Arm) -> Iterable[int]:
    """The rounds to do: those of the config, or, beside main, those that main did.

    What is shared with main in every round needs no rounds but those that are measured.
    """
    if arm.main is None:
        return range(1, config.rounds + 1)
    rounds = range(1, max(arm.main.policies) + 1)
    if arm.source is arm.main:
        return [number for number in rounds if is_measured(arm, number)]
    return rounds


def built_upon(config: Config, arm: Arm, round_number: int) -> Policy:
    """The policy that the round samples from: the previous round's, or the best where the regression guard says so.

    Main's validation decides, for every arm.
    """
    deciding = [one for one in (arm.main or arm).reports_in_order() if one.round < round_number]
    if config.stop.max_regression is None or not deciding:
        number = round_number - 1
    else:
        number = decisions.current_round(deciding, config.stop.max_regression, config.evaluate.decide_by)
    return arm.source.policies[number]


def start_of(config: Config, arm: Arm, round_number: int) -> Policy:
    """Where training starts: the base model, the policy that the round builds upon, or the best validated one so far.

    An arm beside main starts where main did in that round (its own policy of that number).
    """
    init_from = resolved(arm.config.train, round_number).init_from
    if init_from == "base":
        return arm.policies[0]
    if init_from == "previous":
        return built_upon(config, arm, round_number)
    deciding = [one for one in (arm.main or arm).reports_in_order() if one.round < round_number]
    return arm.source.policies[decisions.best_round(deciding, by=config.evaluate.decide_by)]


def is_measured(arm: Arm, round_number: int) -> bool:
    """Whether an arm beside main is measured in that round: at main's headline, and where its settings say."""
    assert arm.main is not None
    assert arm.settings is not None
    named = names_round(arm.settings.evaluate_rounds, round_number, last=max(arm.main.policies))
    reports, by = arm.main.reports_in_order(), arm.main.config.evaluate.decide_by
    return named or (bool(reports) and round_number == decisions.headline_round(reports, by)[0])


def measure(config: Config, arm: Arm, phases: Phases, round_number: int) -> None:
    """Evaluate the round, if this arm is evaluated there. Round 0 is the same policy in all arms, and done once."""
    policy = arm.policies[round_number]
    if phases.prompts.held_out() and (arm.main is None or round_number == 0 or is_measured(arm, round_number)):
        arm.reports[round_number] = phases.measuring.evaluate(arm, round_number, policy)
    if arm.main is None:
        if names_round(config.evaluate.sampled_rounds, round_number, last=-1):
            evaluate_sampled(arm, phases, round_number)
        for more in phases.ranking.after_round(arm, round_number, last=-1):
            _add(arm, more)
        if _keeps_retention(config, phases, round_number):
            measure_retention(arm, phases, round_number)


def measure_last(config: Config, arm: Arm, phases: Phases) -> None:
    """What the config wants measured in the last round: which that is, is known when the loop has ended."""
    last = max(arm.policies)
    if arm.main is None and names_round(config.evaluate.sampled_rounds, last, last=last):
        evaluate_sampled(arm, phases, last)
    for more in phases.ranking.after_round(arm, last, last=last):
        _add(arm, more)
    wanted = phases.prompts.retention is not None and names_round(config.evaluate.retention_rounds, last, last=last)
    if arm.main is None and wanted:
        by = config.evaluate.decide_by
        headline = {decisions.headline_round(arm.reports_in_order(), by)[0]} if arm.reports else set()
        for number in sorted({*headline, last}):
            measure_retention(arm, phases, number)


def _keeps_retention(config: Config, phases: Phases, round_number: int) -> bool:
    """Whether retention is measured in that round; in round 0 always, as the others are compared with it."""
    rounds = config.evaluate.retention_rounds
    if phases.prompts.retention is None or rounds == "none":
        return False
    return round_number == 0 or names_round(rounds, round_number, last=-1)


def evaluate_sampled(arm: Arm, phases: Phases, round_number: int) -> None:
    """Add the sampled metrics of a round to its report."""
    if round_number in arm.reports:
        _add(arm, phases.measuring.evaluate_sampled(arm, round_number, arm.policies[round_number]))


def measure_retention(arm: Arm, phases: Phases, round_number: int) -> None:
    """Add what was retained to the round's report."""
    _add(arm, phases.measuring.retention(arm, round_number, arm.policies[round_number]))


def _add(arm: Arm, more: Report) -> None:
    if more.round in arm.reports:
        report = arm.reports[more.round]
        outcomes = {**more.outcomes, **report.outcomes}  # of the greedy answers, where both have the set
        arm.reports[more.round] = Report(arm.name, more.round, {**report.metrics, **more.metrics}, outcomes)


def should_stop(config: Config, arm: Arm, phases: Phases, round_number: int) -> bool:
    """Whether main ends early. A round that is already committed is never cut off by a stop rule."""
    if arm.main is not None:
        return False

    def reason() -> str | None:
        if phases.commits.is_committed(arm, round_number + 1):
            return None
        stopping = [one.name for one in phases.alarms(arm, round_number) if one.name in config.alarms.stop_on]
        if stopping:
            return f"the alarm {stopping[0]} was raised, which is in alarms.stop_on"
        return decisions.should_stop(
            arm.reports_in_order(),
            config.stop,
            seconds=phases.commits.seconds_spent(round_number),
            sampled_tokens=int(phases.commits.tokens_sampled(round_number)),
            by=config.evaluate.decide_by,
        )

    why = phases.world.from_first(reason, f"whether to stop after round {round_number}")
    if why is not None and round_number < config.rounds:
        phases.terminal.info(f"{arm.name} · stops after round {round_number}: {why}")
        told = f"that {arm.name} stops after round {round_number}"
        phases.world.from_first(lambda: phases.run.note("stopped", round=round_number, why=why), told)
    return why is not None


def best_policy(arm: Arm) -> Policy:
    """The policy to promote: of the best validated round, or of the last where nothing validates.

    Beside main it is main's choice too: what an arm was measured on decides nothing.
    """
    main = arm.main or arm
    if any("validate" in report.outcomes for report in main.reports.values()):
        number = decisions.best_round(main.reports_in_order(), by=main.config.evaluate.decide_by)
        return arm.policies.get(number, arm.latest())
    return arm.latest()
