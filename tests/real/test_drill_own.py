"""A team's schema in a real cluster: from migrations and from a dump, its rows, and what can be done to it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.command import run
from fixtures.drill.content import Content, read_drill
from fixtures.drill.own import fill_own, measure_own
from fixtures.drill.own_app import Statements, write_routes
from fixtures.drill.own_damage import KINDS, choose_damage
from fixtures.errors import ToolError
from fixtures.evidence import Secret
from fixtures.migrations.ledger import read_ledger
from fixtures.postgres.server import Server
from fixtures.postgres.session import connect

FILMS = Path(__file__).parents[2] / "docs" / "examples" / "film-rental"
PASSWORD = Secret("one-for-the-test")


def content_at(path: Path) -> Content:
    """Return what a configuration file wants."""
    return read_drill(path)[1]


def started(server: Server) -> Server:
    """Start a server."""
    with (server.data / "postgresql.conf").open("a") as conf:
        conf.write("listen_addresses = ''\ntrack_commit_timestamp = on\nfsync = off\n")
    server.wait_ready(server.start(name="own"))
    return server


def fill(server: Server, content: Content) -> tuple[object, ...]:
    """Fill a server with what a configuration says."""
    assert content.own is not None
    return fill_own(server, content, content.own, password=PASSWORD)


@pytest.fixture
def films(new_server: Callable[..., Server]) -> Server:
    """The film rental, from its migrations."""
    server = started(new_server("own"))
    fill(server, content_at(FILMS / "drill.toml"))
    return server


def test_a_dump_makes_what_the_migrations_made(
    films: Server, new_server: Callable[..., Server], tmp_path: Path
) -> None:
    """pg_dump --schema-only of one is the other: same rows after the seed, and a ledger that is up to date."""
    dump = tmp_path / "schema.sql"
    argv = [films.binaries.tool("pg_dump"), "--schema-only", "--exclude-schema=drill"]
    dump.write_text(run(argv, timeout_s=60, env=films.endpoint.on("films").environment()).stdout)
    shutil.copytree(FILMS / "migrations", tmp_path / "migrations")
    shutil.copy(FILMS / "seed.sql", tmp_path)
    file = tmp_path / "drill.toml"
    text = (FILMS / "drill.toml").read_text()
    file.write_text(text.replace("[drill.own_schema]", f'[drill.own_schema]\ndump = "{dump.name}"'))
    content = content_at(file)

    second = started(new_server("dumped"))
    fill(second, content)

    sums = []
    for server in (films, second):
        with connect(server.endpoint.on("films")) as session:
            sums.append(
                [(each.rows, each.checksum) for each in measure_own(session, ["rental.film", "rental.copy"])]
            )
    assert sums[0] == sums[1]
    assert sums[0][0][0] == 120
    assert content.listed is not None
    assert content.listed.migrations is not None
    ledger = read_ledger(second.endpoint.on("films"), content.listed.migrations)
    assert (ledger.pending, ledger.edited, len(ledger.applied)) == ((), (), 3)


def test_what_came_later_is_not_measured(films: Server) -> None:
    """Seeded rows are told from later ones, in a partitioned table too, and a lost one is missed."""
    with connect(films.endpoint.on("films")) as session:
        before = measure_own(session, ["rental.payment", "rental.gone"])
        session.do("INSERT INTO rental.payment (loan_id, cents) VALUES (1, 5)")

        assert measure_own(session, ["rental.payment", "rental.gone"], up_to=before) == before

        session.do("DELETE FROM rental.payment WHERE id = 1")
        after = measure_own(session, ["rental.payment", "rental.gone"], up_to=before)
    assert after[0] != before[0]
    assert (before[0].rows, before[1].checksum) == (2000, "missing")


def test_a_write_is_kept_once_with_its_request_id(films: Server) -> None:
    """In a text column of the team's, or in the drill's table, in one transaction; a repeated one changes nothing."""
    request, again = ({"request_id": "5b1c8a1e-7a3b-4a51-9c1e-0f1d3a9e6c11", "n": n} for n in (1, 2))
    endpoint = films.endpoint.on("films")
    with connect(endpoint) as session:
        session.do("CREATE TABLE rental.wish (key text UNIQUE, n int)")
        insert = "INSERT INTO rental.wish VALUES ({}, %(n)s) ON CONFLICT DO NOTHING"
        theirs = Statements(
            write=insert.format("%(request_id)s"), read="", place="rental.wish.key", heartbeat=""
        )
        ours = Statements(
            write=insert.format("'100 %%'"), read="", place="drill.requests.request_id", heartbeat=""
        )
        for statements in (theirs, ours):
            route = write_routes(statements)["/write"]
            assert [route(session.raw, body).body.get("duplicate") for body in (request, again)] == [
                False,
                True,
            ]
        assert session.rows("SELECT key, n FROM rental.wish ORDER BY n, key") == [
            ("100 %", 1), (request["request_id"], 1),
        ]  # fmt: skip
        assert session.value("SELECT count(*) FROM drill.requests") == 1

        other = {"request_id": "00000000-0000-4000-8000-000000000001", "n": 3}
        assert write_routes(ours)["/write"](session.raw, other).status == 409
        assert session.value("SELECT count(*) FROM drill.requests") == 1


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_strikes_a_critical_table(films: Server, kind: str) -> None:
    """The trial is rolled back, the choice is the seed's, and what was chosen goes through."""
    content = content_at(FILMS / "drill.toml")
    endpoint = films.endpoint.on("films")
    with connect(endpoint) as session:
        before = measure_own(session, ["rental.loan", "rental.payment", "rental.customer"])

        chosen = choose_damage(endpoint, content, named=kind, seed=3)

        assert measure_own(session, [each.table for each in before], up_to=before) == before
        assert chosen.sentence == choose_damage(endpoint, content, named=kind, seed=3).sentence
        assert session.do(chosen.statement(3, 0)) != 0


def test_what_keys_refuse_is_not_chosen(films: Server) -> None:
    """A DELETE of customers is refused by their loans: another kind is chosen, or it is told."""
    content = content_at(FILMS / "drill.toml")
    assert content.own is not None
    endpoint = films.endpoint.on("films")
    with connect(endpoint) as session:
        session.do("TRUNCATE rental.loan CASCADE")
        session.do("DELETE FROM rental.copy")
        session.do("DELETE FROM rental.film")
        session.do("DELETE FROM rental.customer")

    assert choose_damage(endpoint, content, named="", seed=3).name in {"drop", "truncate"}
    with pytest.raises(ToolError) as caught:
        choose_damage(endpoint, content, named="delete", seed=3)
    assert caught.value.code == "RB701"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("seed.sql", "INSERT INTO rental.nothing DEFAULT VALUES", "rental.nothing"),
        ("seed.sql", "GRANT SELECT ON rental.film TO nobody_here", "nobody_here"),
        ("migrations/20260105_people_and_films.sql", "CREATE TABLE broken (", "20260105_people_and_films"),
    ],
)
def test_a_file_that_does_not_load_is_named(
    new_server: Callable[..., Server], tmp_path: Path, name: str, text: str, said: str
) -> None:
    """The file, PostgreSQL's words, and what to do."""
    shutil.copytree(FILMS, tmp_path / "films")
    (tmp_path / "films" / name).write_text(text)

    with pytest.raises(ToolError) as caught:
        fill(started(new_server("broken")), content_at(tmp_path / "films" / "drill.toml"))

    assert caught.value.code == "RB701"
    assert said in caught.value.fact + caught.value.where
    assert caught.value.hints
