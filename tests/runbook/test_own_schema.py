"""A drill on a schema that is not ours: the shipped example as it stands, by its configuration alone."""

from pathlib import Path

import pytest
from endings import audit_green, failed_and_rolled_back, told

CONFIG = "docs/examples/film-rental/drill.toml"
#: shrunk: what is tested is what happens, not how much of it
FAST = (
    ('warmup = "2s"', 'warmup = "1s"'),
    ('window = "10s"', 'window = "3s"'),
    ('interval = "1s"', 'interval = "500ms"\nmin_requests = 1'),
    ("p95_ms = 500", "p95_ms = 5000"),
    ("p99_ms = 2000", "p99_ms = 9000"),
)


@pytest.fixture
def films(checkout):
    """A checkout whose example is small and fast."""
    for old, new in FAST:
        checkout.edit(old, new, file=CONFIG)
    return checkout


@pytest.mark.parametrize("disaster", ["delete", "truncate"])
def test_a_film_rental_is_struck_restored_and_audited(films, disaster):
    """Every step does its work, and the audit finds every acknowledged loan where it belongs."""
    session = films.run("--drill", f"--config={CONFIG}", "--seed=5", f"--disaster={disaster}")

    assert session.code == 0, session.output[-4000:]
    summary = films.summary()
    assert (summary["production"], summary["disaster"]) == ("film-rental-drill", disaster)
    assert {step["status"] for step in summary["steps"]} == {"passed"}
    audit = {check["id"]: check for check in summary["audit"]}
    assert {check["verdict"] for check in audit.values()} == {"pass"}
    assert "rental.payment 2000 rows" in audit["preloaded_rows_served"]["actual"]
    assert int(audit["acked_before_target_served"]["actual"]) > 10
    assert not films.world_folder().exists()


def test_a_canary_that_fails_there_is_rolled_back(films):
    """A wrong route stops it before the switch, and no acknowledged write of theirs is lost."""
    films.edit('path = "/read"', 'path = "/reed"', file=CONFIG)

    session = films.run("--drill", f"--config={CONFIG}", "--seed=6")

    assert session.code == 1, session.output[-3000:]
    failed_and_rolled_back(films, "s08.canary", reason="/reed")
    audit_green(told(films, "s08.canary"))


def test_a_schema_that_does_not_load_ends_before_it_begins(films):
    """A broken seed is named with its file; nothing of the world is left."""
    seed = Path(films.root) / "docs" / "examples" / "film-rental" / "seed.sql"
    seed.write_text("INSERT INTO rental.nothing DEFAULT VALUES;\n")

    session = films.run("--drill", f"--config={CONFIG}", "--seed=5")

    assert session.code == 4, session.output[-3000:]
    assert "RB701 seed.sql does not load" in session.output
    assert not (films.root / "reports" / "runs" / "latest").exists()
