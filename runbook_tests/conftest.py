"""The guards around every step."""

import pytest

from fixtures.context import RunContext
from fixtures.rollback import roll_back_at_once
from fixtures.steps import Ledger, test_name


@pytest.fixture(autouse=True)
def _roll_back_at_once(request: pytest.FixtureRequest, run: RunContext, ledger: Ledger):
    """Roll back in the failing step's own teardown: the first of three tiers."""
    yield
    roll_back_at_once(run, ledger, test_name(request.node))
