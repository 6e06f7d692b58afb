"""An arm: one loop of the run, and its history as far as it is committed."""

from __future__ import annotations

from dataclasses import dataclass, field

from selftrain.config import ArmConfig, RoundNames
from selftrain.records import Policy, Receipt, Report


@dataclass(slots=True)
class Arm:
    """The main arm (`control_of` is None), or a control that repeats main's rounds with other survivors.

    `policies[r]`, `reports[r]` and `receipts[key]` are what rounds so far gave; nothing here is state of its own.
    """

    name: str
    settings: ArmConfig | None = None
    control_of: Arm | None = None
    policies: dict[int, Policy] = field(default_factory=dict)
    reports: dict[int, Report] = field(default_factory=dict)
    receipts: dict[str, Receipt] = field(default_factory=dict)

    def key(self, round_number: int, name: str) -> str:
        """The name of a phase's receipt in the run directory."""
        return f"arms/{self.name}/rounds/{round_number:03d}/{name}"

    def folder(self, round_number: int) -> str:
        """The round's folder, relative to the run directory."""
        return f"arms/{self.name}/rounds/{round_number:03d}"

    def latest(self) -> Policy:
        """The policy of the last finished round."""
        return self.policies[max(self.policies)]

    def reports_in_order(self) -> list[Report]:
        """The reports by round."""
        return [report for _, report in sorted(self.reports.items())]

    def at(self, round_number: int, name: str) -> Receipt:
        """The receipt of a phase that is done."""
        return self.receipts[self.key(round_number, name)]


def names_round(names: RoundNames, round_number: int, *, last: int) -> bool:
    """Whether `all`, `none` or a list such as [first, 2, last] names that round."""
    if isinstance(names, str):
        return names == "all"
    return round_number in {{"first": 0, "last": last}.get(str(name), name) for name in names}
