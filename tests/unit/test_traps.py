"""The table of traps is of tests that are there, and leaves no provider out without a reason."""

import ast
from functools import cache
from pathlib import Path

import pytest

from fixtures.providers import REGISTRY
from tests.traps import TRAPS

REAL = Path(__file__).parents[1] / "real"
#: a team's own scripts reach the store, and say what went wrong
OWN_SCRIPTS = {"command"}


@cache
def asked_in(module: str) -> frozenset[str]:
    """Names of a module's tests."""
    nodes = ast.parse((REAL / f"{module}.py").read_text()).body
    return frozenset(
        node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


@pytest.mark.parametrize("trap", TRAPS)
def test_each_trap_has_a_test_or_a_reason_for_every_provider(trap):
    """A new provider has none, and a test that was renamed is not there."""
    lines = TRAPS[trap]
    named = {line for line in lines.values() if "::" in line}

    assert {lab.removesuffix("-s3") for lab in lines} == set(REGISTRY) - OWN_SCRIPTS
    assert [line for line in sorted(named) if line.split("::")[1] not in asked_in(line.split("::")[0])] == []


def test_a_test_that_is_not_there_is_missed():
    """The table would claim what nobody asks."""
    assert "test_nobody_wrote" not in asked_in("test_providers")
    assert "test_a_token_that_expires_on_the_way_is_an_outage" in asked_in("test_providers")
