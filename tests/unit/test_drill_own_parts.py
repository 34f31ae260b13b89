"""A drill on a team's own schema: what its configuration says, refuses, and makes of it."""

import json
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fixtures.drill.app import Card
from fixtures.drill.app_metrics import Metrics
from fixtures.drill.bindings import drill_bindings
from fixtures.drill.building import CONTENT
from fixtures.drill.cluster import Places
from fixtures.drill.content import CARDS, Content, read_drill
from fixtures.drill.dsn import Pool, fixed_source
from fixtures.drill.lookup import found_in_packs
from fixtures.drill.own import named_roles
from fixtures.drill.own_app import Statements, read_routes, write_routes
from fixtures.drill.own_damage import KINDS, known_kind
from fixtures.drill.witness import Ack, Recorder, read_acks
from fixtures.drill.workload import next_own_wish
from fixtures.errors import ConfigError, UsageError
from fixtures.postgres.binaries import Binaries

ROOT = Path(__file__).parents[2]
FILMS = ROOT / "docs" / "examples" / "film-rental" / "drill.toml"
OWN = """
[[databases]]
name = "shop"
critical_tables = ["shop.orders"]
[drill.own_schema]
dump = "schema.sql"
"""


def content_at(path: Path) -> Content:
    """Return what a configuration file wants."""
    return read_drill(path)[1]


def write(tmp_path: Path, text: str) -> Path:
    """Write a configuration file."""
    file = tmp_path / "drill.toml"
    file.write_text(text)
    return file


def test_the_shipped_configuration_means_stamp_cards() -> None:
    """Without [drill.own_schema] nothing changes."""
    assert content_at(ROOT / "runbook.toml") == CARDS


def test_the_example_names_its_own_files() -> None:
    """Paths start at the file, and everything survives the world's record."""
    content = content_at(FILMS)

    assert content.own is not None
    assert content.own.seed == (FILMS.parent / "seed.sql",)
    assert content.listed is not None
    assert content.listed.migrations is not None
    assert content.listed.migrations.directory == FILMS.parent / "migrations"
    assert (content.database, content.app) == ("films", "drill_app")
    assert CONTENT.validate_json(CONTENT.dump_json(content)) == content


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('dump = "schema.sql"\n', "", "needs dump"),
        ('critical_tables = ["shop.orders"]\n', "", "needs critical_tables"),
        ("[drill.own_schema]", '[[databases]]\nname = "two"\n[drill.own_schema]', "not 2"),
        ('"schema.sql"', '"schema.sql"\ndamage = "shop.other"', "none of the critical_tables"),
        ('"schema.sql"', '"schema.sql"\nwrite = "x"\nrequest_id = "key"', "schema.table.column"),
        ('"schema.sql"', '"schema.sql"\nrequest_id = "shop.orders.key"', "needs write"),
        ('"schema.sql"', '"schema.sql"\nwirte = "x"', "wirte"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    """Before anything is built, with the key that is wrong."""
    with pytest.raises(ConfigError) as caught:
        content_at(write(tmp_path, OWN.replace(old, new)))

    assert caught.value.code == "RB105"
    assert said in caught.value.fact


def test_an_unknown_disaster_names_the_known() -> None:
    """The stamp cards' own disasters mean nothing to another schema."""
    with pytest.raises(UsageError) as caught:
        known_kind("cascade")

    assert caught.value.code == "RB702"
    assert [hint.partition(":")[0] for hint in caught.value.hints] == list(KINDS)
    assert known_kind("") == ""


def test_writes_go_where_their_request_id_is_kept(tmp_path: Path) -> None:
    """In the team's column where there is one, else in the drill's table; notes always in the latter."""
    films = Statements.of(content_at(FILMS))
    plain = Statements.of(content_at(write(tmp_path, OWN)))
    chance = random.Random(1)

    wishes = [next_own_wish(chance, films) for _ in range(200)]
    alone = {next_own_wish(chance, plain).kind for _ in range(20)}

    assert {wish.kind: wish.place for wish in wishes} == {
        "write": "rental.loan.request_id", "note": "drill.requests.request_id",
    }  # fmt: skip
    assert alone == {"note"}
    assert all(0 < int(wish.body()["n"]) < 1_000_000 for wish in wishes)
    assert (films.kept_by_us, plain.kept_by_us) == (False, True)


def test_routes_are_what_is_configured(tmp_path: Path) -> None:
    """No statement, no route; the file the application reads says the same as the configuration."""
    films = Statements.of(content_at(FILMS))
    file = tmp_path / "statements.json"
    file.write_text(films.text())

    assert Statements.load(file) == films
    assert set(write_routes(films)) == {"/write", "/note"}
    assert set(read_routes(films)) == {"/read"}
    plain = Statements.of(content_at(write(tmp_path, OWN)))
    assert set(write_routes(plain)) == {"/note"}
    assert read_routes(plain) == {}
    pool = Pool(fixed_source(""), application="test")
    assert "/claim" in Card(pool=pool, maintenance=None, dry_run=True, metrics=Metrics()).writes


def test_the_bindings_lead_to_the_teams_database(tmp_path: Path) -> None:
    """Database, role, statements and probe are the team's; a stamp card's drill is bound as before."""
    binaries = Binaries(tmp_path, None, 18)
    places = Places(folder=tmp_path)

    bound = drill_bindings(places, binaries, port=1, app_url="http://127.0.0.1:2", content=content_at(FILMS))
    cards = drill_bindings(places, binaries, port=1, app_url="http://127.0.0.1:2")

    assert bound["production"]["dsn"].endswith("dbname=films")
    assert bound["production"]["app_role"] == "drill_app"
    assert bound["app"]["write_probe"][-2:] == ["--path", "/note"]
    assert bound["canary"]["command"][-2:] == ["--statements", str(places.statements)]
    assert cards["production"]["dsn"].endswith("dbname=stampcard")
    assert "--statements" not in cards["canary"]["command"]


def test_a_place_is_remembered_and_looked_for(tmp_path: Path) -> None:
    """An acknowledgement keeps where its row must be, and a partition's pack is searched by the column."""
    now = datetime.now(UTC)
    ack = Ack(kind="write", request_id="a", user_id=0, sent_at=now, acked_at=now, place="films.loan.key")
    Recorder(tmp_path).acked(ack)
    (tmp_path / "films.loan_2026_01.jsonl").write_text(json.dumps({"key": "a", "request_id": "b"}) + "\n")

    assert read_acks(tmp_path) == (ack,)
    assert (ack.table, ack.column) == ("films.loan", "key")
    assert found_in_packs([tmp_path], columns={"key"}) == {"a"}
    assert found_in_packs([tmp_path]) == {"b"}


def test_the_roles_of_a_dump_are_all_named_at_once() -> None:
    """Owners and grants, each once; neither PUBLIC nor what every cluster has; no text that looks like one."""
    dump = """
ALTER SCHEMA clinic OWNER TO dba;
ALTER FUNCTION clinic.book(request uuid, n integer) OWNER TO "The Owner";
ALTER TABLE clinic.visit OWNER TO postgres;
GRANT USAGE ON SCHEMA clinic TO clinic_app;
GRANT SELECT,INSERT ON TABLE clinic.visit TO clinic_app;
REVOKE ALL ON FUNCTION clinic.book(request uuid, n integer) FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE dba IN SCHEMA clinic GRANT SELECT ON TABLES  TO reader WITH GRANT OPTION;
GRANT pg_monitor TO pg_read_all_stats;
COMMENT ON TABLE clinic.visit IS 'GRANT nothing TO nobody;';
"""

    assert named_roles(dump) == ("dba", "The Owner", "clinic_app", "reader")
