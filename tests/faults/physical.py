"""Faults of files: pages, indexes, maps, the commit log. Done to the stopped copy, most with valid checksums."""

from collections.abc import Callable
from pathlib import Path

from fixtures.command import run
from tests.faults.fault import Fault, sql
from tests.faults.structure import fails
from tests.faults.world import Copy

PAGE = 8192
STAMPS_INDEXES = "physical.index_rows:shop.public.stamps"
STAMPS = "content.production:shop.public.stamps"


def _file(copy: Copy, relation: str, fork: str = "") -> Path:
    return copy.server.data / (copy.restored.paths[relation] + fork)


def _tool(copy: Copy, name: str, *arguments: str | Path) -> None:
    binaries = copy.server.binaries
    run([binaries.tool(name), *arguments, "-D", copy.server.data], timeout_s=60, user=binaries.user)


def _checksums(copy: Copy) -> None:
    """Let every page have a valid checksum again: damage that happened above the disk."""
    _tool(copy, "pg_checksums", "--disable", "--no-sync")
    _tool(copy, "pg_checksums", "--enable", "--no-sync")


def overwritten(
    relation: str, at: int, what: bytes, *, fork: str = "", valid: bool = False
) -> Callable[[Copy], None]:
    """Return what writes bytes into a relation's file."""

    def damage(copy: Copy) -> None:
        with _file(copy, relation, fork).open("r+b") as file:
            file.seek(at)
            file.write(what)
        if valid:
            _checksums(copy)

    return damage


def _cut(relation: str) -> Callable[[Copy], None]:
    def damage(copy: Copy) -> None:
        with _file(copy, relation).open("r+b") as file:
            file.truncate(file.seek(0, 2) - PAGE)

    return damage


def _gone(relation: str) -> Callable[[Copy], None]:
    return lambda copy: _file(copy, relation).unlink()


def _turned(relation: str) -> Callable[[Copy], None]:
    """Return what exchanges the first two item pointers of an index's first leaf."""

    def damage(copy: Copy) -> None:
        with _file(copy, relation).open("r+b") as file:
            file.seek(PAGE + 24 + 4)  # behind the page's header and its high key
            pointers = file.read(8)
            file.seek(PAGE + 24 + 4)
            file.write(pointers[4:] + pointers[:4])
        _checksums(copy)

    return damage


def _no_checksums(copy: Copy) -> None:
    _tool(copy, "pg_checksums", "--disable", "--no-sync")


def _aged(copy: Copy) -> None:
    """Bring the next transaction id near the limit."""
    near = 1_700_000_000
    _tool(copy, "pg_resetwal", "-f", "-x", str(near))
    segment = copy.server.data / "pg_xact" / f"{near // (PAGE * 4 * 32):04X}"
    segment.write_bytes(bytes(PAGE * 32))
    copy.server.binaries.own(segment)


#: lets no emergency vacuum mend it before it is seen
_PATIENT = {"autovacuum_freeze_max_age": "2000000000"}

FAULTS: tuple[Fault, ...] = (
    Fault(name="a page has a wrong checksum", late=True, offline=overwritten("stamps", 2 * PAGE + 4000, b"\xff" * 100),
          unreadable=True, fires=fails("physical.table:shop.public.stamps", STAMPS_INDEXES, "physical.checksum_failures")),
    Fault(name="a page is empty", offline=overwritten("stamps", PAGE, bytes(PAGE)),
          fires=fails(STAMPS, STAMPS_INDEXES, "fk:shop.public.rewards.rewards_stamp_id_fkey")),
    Fault(name="a table's last page is cut off", offline=_cut("stamps"), unreadable=True, fires=fails(STAMPS)),
    Fault(name="a table has no file", late=True, offline=_gone("documents"), unreadable=True, fires=fails("storage.files:shop")),
    Fault(name="an index has no file", offline=_gone("stamps_user"), late=True, unreadable=True,
          fires=fails("storage.files:shop", "physical.table:shop.public.stamps", STAMPS_INDEXES)),
    Fault(name="a long value is lost", late=True, offline=overwritten("toast of documents", 0, bytes(PAGE)),
          unreadable=True, fires=fails("physical.table:shop.public.documents")),
    sql("an index misses rows", "physical.index_rows:shop.public.rewards",
        "UPDATE pg_index SET indisready = false, indisvalid = false WHERE indexrelid = 'rewards_kind'::regclass",
        "INSERT INTO rewards (id, stamp_id, kind) VALUES (70000, 5, 'lost')", "SELECT setval('rewards_id_seq', 70000)",
        "UPDATE pg_index SET indisready = true, indisvalid = true WHERE indexrelid = 'rewards_kind'::regclass"),
    *(
        sql(f"{kind} misses rows", fails(f"physical.index_rows:shop.public.{table}", f"content.production:shop.public.{table}"),
            f"UPDATE pg_index SET indisready = false, indisvalid = false WHERE indexrelid = '{index}'::regclass", change,  # noqa: S608 - constants
            f"UPDATE pg_index SET indisready = true, indisvalid = true WHERE indexrelid = '{index}'::regclass")  # noqa: S608 - constants
        for kind, index, table, change in (
            ("an inverted index", "users_tags", "users", "UPDATE users SET tags = ARRAY['a', 'new'] WHERE id = 3"),
            ("a hash index", "users_email", "users", "UPDATE users SET email = 'new@example.org' WHERE id = 3"),
            ("an exclusion's index", "bookings_room_during_excl", "bookings",
             "INSERT INTO bookings VALUES (77, tstzrange('2025-01-01', '2025-01-03'))"),
        )
    ),
    sql("a unique key is there twice", "physical.table:shop.public.rewards",
        "UPDATE pg_index SET indisunique = false, indisprimary = false WHERE indexrelid = 'rewards_pkey'::regclass",
        "INSERT INTO rewards (id, stamp_id, kind) VALUES (60, 5, 'twice')",
        "UPDATE pg_index SET indisunique = true, indisprimary = true WHERE indexrelid = 'rewards_pkey'::regclass"),
    Fault(name="an index is in another order", offline=_turned("users_name"), fires=fails("physical.table:shop.public.users")),
    Fault(name="an inverted index is damaged", offline=overwritten("users_tags", 2 * PAGE - 408, b"\x11" * 400, valid=True),
          fires=fails("physical.table:shop.public.users", "physical.index_rows:shop.public.users")),
    Fault(name="the catalogue's index is in another order", offline=_turned("pg_description_o_c_o_index"),
          fires=fails("physical.catalogue:shop")),
    Fault(name="the visibility map lies", sql=("UPDATE users SET mood = mood WHERE id = 3",),
          offline=overwritten("users", 24, b"\xff" * 4, fork="_vm", valid=True),
          fires=fails("storage.visibility:shop", "physical.index_rows:shop.public.users")),
    Fault(name="data checksums are off", offline=_no_checksums, fires=fails("physical.checksums")),
    Fault(name="damage is passed over", settings={"zero_damaged_pages": "on"}, fires=fails("physical.repair_switches")),
    Fault(name="transaction ids are nearly used up", offline=_aged, settings=_PATIENT, fires=fails("surroundings.wraparound")),
)  # fmt: skip
