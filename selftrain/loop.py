"""The loop: rounds of sample, score, select, train, evaluate, for the main arm and then for each control.

Nothing here knows whether a phase is done now or was done before: `phases` answers with the committed result.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from selftrain.arms import Arm, names_round
from selftrain.config import Config, resolved
from selftrain.evaluation import decisions
from selftrain.phases import Phases
from selftrain.records import Policy, Report
from selftrain.summaries import round_rows


def run_arms(config: Config, phases: Phases) -> list[Arm]:
    """Run the main arm, then the controls; return them with their histories, main first."""
    main = Arm("main")
    train_rounds(config, main, phases)
    arms = [main]
    for settings in config.arms:
        arms.append(Arm(settings.name, settings, control_of=main))
        train_rounds(config, arms[-1], phases)
    return arms


def train_rounds(config: Config, arm: Arm, phases: Phases) -> Policy:
    """All rounds of one arm; return its best policy."""
    arm.policies[0] = phases.rooms.base_policy
    measure(config, arm, phases, 0)
    for round_number in rounds_of(config, arm):
        started, busy = time.monotonic(), phases.busy_seconds()
        scored = phases.gather(arm, round_number, arm.latest())
        survivors = phases.select(arm, round_number, scored)
        start = start_of(config, arm, round_number)
        arm.policies[round_number] = phases.train(arm, round_number, survivors, start)
        measure(config, arm, phases, round_number)
        if phases.finish_round(arm, round_number, seconds=time.monotonic() - started, busy_before=busy):
            phases.terminal.round_table(arm.name, round_number, list(round_rows(arm, round_number)))
        if should_stop(config, arm, phases, round_number):
            break
    if is_sampled(config, arm, "last"):
        evaluate_sampled(arm, phases, max(arm.policies))
    return best_policy(arm)


def rounds_of(config: Config, arm: Arm) -> range:
    """The rounds to do: those of the config, or, for a control, those that main did."""
    last = config.rounds if arm.control_of is None else max(arm.control_of.policies)
    return range(1, last + 1)


def start_of(config: Config, arm: Arm, round_number: int) -> Policy:
    """Where training starts: the base model, the previous round's policy, or the best validated one so far.

    A control starts where main did in that round (its own policy of that number), so that only the data differ.
    """
    init_from = resolved(config.train, round_number).init_from
    if init_from == "base":
        return arm.policies[0]
    if init_from == "previous":
        return arm.policies[round_number - 1]
    deciding = (arm.control_of or arm).reports
    earlier = [report for number, report in sorted(deciding.items()) if number < round_number]
    return arm.policies[decisions.best_round(earlier)]


def measure(config: Config, arm: Arm, phases: Phases, round_number: int) -> None:
    """Evaluate the round if this arm is evaluated there. A control shares main's baseline."""
    main = arm.control_of
    if not phases.prompts.held_out():
        return
    if main is not None and round_number == 0:
        arm.reports[0] = main.reports[0]
        return
    if main is not None and arm.settings is not None:
        named = names_round(arm.settings.evaluate_rounds, round_number, last=max(main.policies))
        if not named and round_number != decisions.headline_round(main.reports_in_order())[0]:
            return
    policy = arm.policies[round_number]
    arm.reports[round_number] = phases.evaluate(arm, round_number, policy)
    if is_sampled(config, arm, round_number):
        evaluate_sampled(arm, phases, round_number)


def is_sampled(config: Config, arm: Arm, round_number: int | str) -> bool:
    """Whether the config wants sampled evaluation of main in that round; `last` is known when the loop has ended."""
    names = config.evaluate.sampled_rounds
    if arm.control_of is not None or not arm.reports:
        return False
    if round_number == "last":
        return not isinstance(names, str) and "last" in names
    return names_round(names, int(round_number), last=-1)


def evaluate_sampled(arm: Arm, phases: Phases, round_number: int) -> None:
    """Add the sampled metrics of a round to its report."""
    sampled = phases.evaluate_sampled(arm, round_number, arm.policies[round_number])
    greedy = arm.reports[round_number]
    metrics: Mapping[str, float] = {**greedy.metrics, **sampled.metrics}
    arm.reports[round_number] = Report(arm.name, round_number, metrics, greedy.outcomes)


def should_stop(config: Config, arm: Arm, phases: Phases, round_number: int) -> bool:
    """Whether main ends early. A round that is already committed is never cut off by a stop rule."""
    if arm.control_of is not None or phases.commits.is_committed(arm, round_number + 1):
        return False
    reports = arm.reports_in_order()
    reason = decisions.should_stop(
        reports,
        config.stop,
        seconds=phases.commits.seconds_spent(),
        sampled_tokens=int(phases.commits.tokens_sampled()),
    )
    if reason is not None and round_number < config.rounds:
        phases.terminal.info(f"{arm.name} · stops after round {round_number}: {reason}")
    return reason is not None


def best_policy(arm: Arm) -> Policy:
    """The policy to promote: of the best validated round, or of the last where nothing validates.

    A control's is main's choice too: what it was measured on decides nothing.
    """
    main = arm.control_of or arm
    if any("validate" in report.outcomes for report in main.reports.values()):
        return arm.policies[decisions.best_round(main.reports_in_order())]
    return arm.latest()
