"""The tiers of the sandbox that this machine has. With SELFTRAIN_REQUIRE_SANDBOX=1 a missing one is a failure."""

from __future__ import annotations

import os
from functools import cache

import pytest

from selftrain.errors import SandboxRefused
from selftrain.scoring.sandbox import Chosen
from selftrain.scoring.sandbox.choosing import choose

CONFINED = ("bubblewrap", "landlock")


@cache
def _chosen(tier: str) -> Chosen | str:
    try:
        return choose(tier)
    except SandboxRefused as refused:
        return str(refused)


def chosen_or_skip(tier: str) -> Chosen:
    """What the self-test chose of that tier; skips where there is none, or fails where one is required."""
    chosen = _chosen(tier)
    if isinstance(chosen, Chosen):
        return chosen
    if os.environ.get("SELFTRAIN_REQUIRE_SANDBOX") == "1":
        pytest.fail(chosen)
    pytest.skip(chosen)


@pytest.fixture(params=CONFINED)
def confined(request: pytest.FixtureRequest) -> Chosen:
    """Each tier that confines, one after the other."""
    return chosen_or_skip(request.param)


@pytest.fixture
def anywhere() -> Chosen:
    """The first tier that confines here, for tests in which the tier makes no difference."""
    for tier in CONFINED:
        if isinstance(chosen := _chosen(tier), Chosen):
            return chosen
    return chosen_or_skip("auto")
