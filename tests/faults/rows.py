"""Faults of rows: values, keys, sequences, large objects."""

from tests.faults.fault import OPEN, Fault, sql
from tests.faults.structure import fails

STAMPS = "content.production:shop.public.stamps"
#: lets a statement through that constraints and triggers would stop
_FREE = "SET session_replication_role = replica"
#: the domain's check is taken away and put back, as a catalogue that was restored with it would have it
_BROKEN_DOMAIN = (
    "CREATE TABLE kept AS SELECT * FROM pg_constraint WHERE conname = 'email_check'",
    "DELETE FROM pg_constraint WHERE conname = 'email_check'",
    "UPDATE users SET email = 'nobody' WHERE id = 3",
    "INSERT INTO pg_constraint SELECT * FROM kept",
    "DROP TABLE kept",
)

FAULTS: tuple[Fault, ...] = (
    sql("rows are missing", STAMPS, "DELETE FROM stamps WHERE id > 1400 AND id < 1450"),
    sql("rows are there twice", STAMPS, "INSERT INTO stamps (user_id, at, note) SELECT user_id, at, note FROM stamps LIMIT 10"),
    sql("a row has another value", STAMPS, "UPDATE stamps SET note = '{}' WHERE id = 7"),
    sql("a row has an equal value in another form", "content.production:shop.public.users",
        "UPDATE users SET balance = 5.00 WHERE id = 5"),
    sql("a table is empty", STAMPS, "DELETE FROM rewards WHERE stamp_id IS NOT NULL", "DELETE FROM stamps"),
    sql("a row changed after recovery", "content.reference:shop.public.rewards", "UPDATE rewards SET kind = 'tea' WHERE id = 60",
        late=True),
    sql("rows of another table went after recovery", "content.other_tables:shop", "DELETE FROM notes WHERE id < 4", late=True),
    sql("rows have no parent", {**fails("fk:shop.public.stamps.stamps_user_id_fkey", "content.production:shop.public.users"),
        "fk:shop.public.soft.soft_user": OPEN},
        _FREE, "DELETE FROM users WHERE id = 9"),
    sql("rows have no parent in their own table", fails("fk:shop.public.users.users_manager_fkey",
        "content.production:shop.public.users"), _FREE, "UPDATE users SET manager = 100000 WHERE id = 3"),
    sql("rows under a key that is not enforced have no parent", {"fk:shop.public.soft.soft_user": OPEN},
        "UPDATE soft SET user_id = 100000 WHERE id = 3"),
    sql("a sequence is behind its column", fails("sequence:shop.public.users_id_seq:public.users.id",
        "high_water:shop.public.users_id_seq"),
        "SELECT setval('users_id_seq', 100)"),
    sql("a sequence hands ids out again", "high_water:shop.public.tickets", "SELECT setval('tickets', 60)"),
    sql("an identity hands ids out again", fails("sequence:shop.public.stamps_id_seq:public.stamps.id",
        "high_water:shop.public.stamps_id_seq"), "ALTER TABLE stamps ALTER id RESTART WITH 1000"),
    sql("a value breaks its domain", fails("rows.domains:shop", "content.production:shop.public.users"),
        *_BROKEN_DOMAIN),
    sql("two rows exclude each other", fails("rows.exclusions:shop", "content.production:shop.public.bookings",
        "physical.index_rows:shop.public.bookings"),
        "UPDATE pg_index SET indisready = false, indisvalid = false WHERE indexrelid = 'bookings_room_during_excl'::regclass",
        "INSERT INTO bookings VALUES (1, tstzrange('2025-01-01', '2025-01-03'))",
        "UPDATE pg_index SET indisready = true, indisvalid = true WHERE indexrelid = 'bookings_room_during_excl'::regclass"),
    sql("a large object is lost", "rows.large_objects:shop", "SELECT lo_unlink(blob) FROM documents WHERE id = 3"),
    sql("a large object has other content", "rows.large_objects:shop", "SELECT lo_put(blob, 0, 'X') FROM documents WHERE id = 3"),
    sql("a materialised view is behind its query", {"rows.views:ledger": OPEN}, "UPDATE rates SET rate = 1.5 WHERE kind = 'a'",
        database="ledger"),
    sql("the team's own rule is broken", fails("sanity:shop.every reward has a stamp"),
        "UPDATE rewards SET stamp_id = NULL WHERE id = 60"),
)  # fmt: skip
