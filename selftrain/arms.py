"""An arm: one loop of the run, and its history as far as it is committed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from selftrain.config import ArmConfig, Config, RoundNames, config_of_arm
from selftrain.records import Policy, Receipt, Report


@dataclass(slots=True)
class Arm:
    """The main arm (`main` is None), or one beside it: a control, or main's method with some knobs set otherwise.

    `config` is the arm's own. `policies[r]`, `reports[r]` and `receipts[key]` are what rounds so far gave; nothing here
    is state of its own. A receipt may be main's: what would come out the same is not done twice.
    """

    name: str
    config: Config
    settings: ArmConfig | None = None
    main: Arm | None = None
    policies: dict[int, Policy] = field(default_factory=dict)
    reports: dict[int, Report] = field(default_factory=dict)
    receipts: dict[str, Receipt] = field(default_factory=dict)

    @property
    def control(self) -> str | None:
        """The kind of control (a name of `config.ARMS`), or None for an arm that does what its knobs say."""
        return self.settings.name if self.settings is not None and self.settings.is_control else None

    @property
    def source(self) -> Arm:
        """The arm whose candidates and policies it goes on from: itself, or main for the one-round diagnostic."""
        return self.main if self.control == "random_selection_shared" and self.main is not None else self

    def key(self, round_number: int, name: str) -> str:
        """The name of a phase's receipt in the run directory."""
        return f"arms/{self.name}/rounds/{round_number:03d}/{name}"

    def folder(self, round_number: int) -> str:
        """The round's folder, relative to the run directory."""
        return f"arms/{self.name}/rounds/{round_number:03d}"

    def adapter(self, round_number: int) -> str:
        """The folder of the adapter that the round trains, relative to the run directory."""
        return f"{self.folder(round_number)}/adapter/improve-00"

    def verifier(self, round_number: int) -> str:
        """The folder of the verifier that is trained after the round, relative to the run directory."""
        return f"{self.folder(round_number)}/verifier"

    def latest(self) -> Policy:
        """The policy of the last finished round."""
        return self.policies[max(self.policies)]

    def reports_in_order(self) -> list[Report]:
        """The reports by round."""
        return [report for _, report in sorted(self.reports.items())]

    def at(self, round_number: int, name: str) -> Receipt:
        """The receipt of a phase that is done."""
        return self.receipts[self.key(round_number, name)]

    def of_round(self, round_number: int) -> dict[str, Receipt]:
        """The receipts of a round by phase."""
        start = f"{self.folder(round_number)}/"
        return {one.phase: one for key, one in self.receipts.items() if key.startswith(start)}

    def metrics(self, round_number: int) -> dict[str, float]:
        """All metrics of a round."""
        return {key: value for one in self.of_round(round_number).values() for key, value in one.metrics.items()}


def arms_of(config: Config) -> Iterator[Arm]:
    """Main first, then the others, each without a history yet."""
    main = Arm("main", config)
    yield main
    for settings in config.arms:
        own = config_of_arm(config, settings) if settings.overrides else config
        yield Arm(settings.name, own, settings, main)


def names_round(names: RoundNames, round_number: int, *, last: int) -> bool:
    """Whether `all`, `none` or a list such as [first, 2, last] names that round."""
    if isinstance(names, str):
        return names == "all"
    return round_number in {{"first": 0, "last": last}.get(str(name), name) for name in names}
