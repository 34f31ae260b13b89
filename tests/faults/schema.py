"""Production of the fault corpus: two databases in which every kind of object a check reads is there."""

from fixtures.checks import TableChange
from fixtures.settings import Database, Heartbeat, Sanity
from tests.faults.world import Story

_CRITICAL = ("users", "stamps", "rewards", "documents", "bookings", "measures")
_SANITY = (
    Sanity(
        name="every reward has a stamp", sql="SELECT count(*) FROM rewards WHERE stamp_id IS NULL", expect=1
    ),
)

_CLUSTER = (
    "CREATE ROLE app LOGIN PASSWORD 'for-the-corpus-only'",
    "CREATE ROLE reader NOLOGIN",
    "CREATE ROLE auditor LOGIN CONNECTION LIMIT 3 VALID UNTIL '2040-01-01'",
    "CREATE ROLE owner NOLOGIN",
    "GRANT reader TO app",
    "ALTER ROLE app SET search_path = public",
    "GRANT SET ON PARAMETER log_min_duration_statement TO auditor",
    "CREATE DATABASE shop OWNER owner",
    "CREATE DATABASE ledger",
    "ALTER DATABASE shop SET timezone = 'UTC'",
    "ALTER ROLE app IN DATABASE shop SET statement_timeout = '30s'",
    "REVOKE CONNECT ON DATABASE ledger FROM PUBLIC",
    "GRANT CONNECT ON DATABASE ledger TO app",
)

_SHOP = (
    """
    CREATE EXTENSION btree_gist;
    CREATE EXTENSION pg_trgm;
    CREATE EXTENSION postgres_fdw;
    CREATE TYPE mood AS ENUM ('low', 'fine', 'high');
    CREATE DOMAIN email AS text CHECK (value LIKE '%@%');
    CREATE TYPE pair AS (a int, b text);
    CREATE SCHEMA internal;
    CREATE COLLATION german (provider = builtin, locale = 'C.UTF-8');
    CREATE TABLE users (id serial PRIMARY KEY, email email NOT NULL UNIQUE, name text COLLATE german, tags text[],
        mood mood DEFAULT 'fine', balance numeric NOT NULL DEFAULT 0 CHECK (balance >= 0),
        upper_name text GENERATED ALWAYS AS (upper(name)) STORED, manager int REFERENCES users DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE stamps (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id int NOT NULL REFERENCES users,
        at timestamptz NOT NULL DEFAULT now(), note jsonb);
    CREATE TABLE rewards (id serial PRIMARY KEY, stamp_id bigint REFERENCES stamps, kind text);
    CREATE TABLE documents (id int PRIMARY KEY, body text NOT NULL, blob oid);
    ALTER TABLE documents ALTER body SET STORAGE EXTERNAL;
    CREATE TABLE bookings (room int NOT NULL, during tstzrange NOT NULL, EXCLUDE USING gist (room WITH =, during WITH &&));
    CREATE TABLE measures (at date NOT NULL, value int, CONSTRAINT positive CHECK (value > 0)) PARTITION BY RANGE (at);
    CREATE TABLE measures_2024 PARTITION OF measures FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    CREATE TABLE measures_2025 PARTITION OF measures FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
    CREATE TABLE heartbeat (at timestamptz NOT NULL);
    CREATE TABLE notes (id int PRIMARY KEY, body text, owner_name name DEFAULT current_user);
    CREATE TABLE soft (id int PRIMARY KEY, user_id int, CONSTRAINT soft_user FOREIGN KEY (user_id) REFERENCES users NOT ENFORCED);
    CREATE UNLOGGED TABLE scratch (i int);
    CREATE SEQUENCE tickets;
    CREATE INDEX stamps_user ON stamps (user_id);
    CREATE INDEX users_tags ON users USING gin (tags);
    CREATE INDEX users_name ON users (name);
    CREATE INDEX users_email ON users USING hash (email);
    CREATE INDEX notes_id ON notes USING brin (id);
    CREATE INDEX rewards_kind ON rewards (kind);
    CREATE INDEX notes_body ON notes (body) WHERE body IS NOT NULL;
    CREATE STATISTICS stamps_both ON user_id, at FROM stamps;
    CREATE VIEW rich AS SELECT id, balance FROM users WHERE balance > 10;
    CREATE VIEW own_rich WITH (security_invoker) AS SELECT id FROM users;
    CREATE MATERIALIZED VIEW per_user AS SELECT i AS user_id, i * 2 AS count FROM generate_series(1, 9) i;
    CREATE FUNCTION add(a int, b int) RETURNS int LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS 'SELECT a + b';
    CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN new; END';
    CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    CREATE OPERATOR === (FUNCTION = texteq, LEFTARG = text, RIGHTARG = text);
    CREATE AGGREGATE product(int) (SFUNC = int4mul, STYPE = int, INITCOND = '1');
    CREATE CAST (pair AS text) WITH INOUT;
    CREATE TRIGGER stamps_guard BEFORE INSERT ON stamps FOR EACH ROW EXECUTE FUNCTION guard();
    CREATE EVENT TRIGGER watches ON ddl_command_end EXECUTE FUNCTION watch();
    ALTER EVENT TRIGGER watches DISABLE;
    CREATE RULE measures_stay AS ON DELETE TO measures WHERE old.at IS NULL DO INSTEAD NOTHING;
    ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own_notes ON notes FOR SELECT TO app USING (owner_name = current_user);
    CREATE TEXT SEARCH CONFIGURATION plain (COPY = simple);
    CREATE PUBLICATION feed FOR TABLE stamps WHERE (user_id > 0) WITH (publish = 'insert');
    COMMENT ON TABLE users IS 'people';
    """,
    """
    INSERT INTO users (email, name, tags, balance) SELECT 'u' || i || '@example.org', 'n' || i, ARRAY['a', 'b' || i % 7], i
        FROM generate_series(1, 400) i;
    INSERT INTO stamps (user_id, note) SELECT 1 + i % 400, jsonb_build_object('a', i) FROM generate_series(1, 1500) i;
    INSERT INTO rewards (stamp_id, kind) SELECT i, 'coffee' FROM generate_series(1, 100) i;
    INSERT INTO rewards (stamp_id, kind) VALUES (NULL, 'gift');
    INSERT INTO documents SELECT i, repeat(md5(i::text), 200), lo_from_bytea(0, 'object'::bytea) FROM generate_series(1, 10) i;
    INSERT INTO bookings SELECT i, tstzrange('2025-01-01', '2025-01-02') FROM generate_series(1, 20) i;
    INSERT INTO measures SELECT date '2024-06-01' + i, 1 + i FROM generate_series(0, 500) i;
    INSERT INTO notes (id, body) SELECT i, 'body' || i FROM generate_series(1, 300) i;
    INSERT INTO soft SELECT i, i FROM generate_series(1, 10) i;
    SELECT nextval('tickets') FROM generate_series(1, 50);
    REFRESH MATERIALIZED VIEW per_user;
    GRANT SELECT, INSERT ON users, stamps, rewards TO app;
    GRANT UPDATE (name) ON users TO app;
    GRANT USAGE ON SEQUENCE users_id_seq TO app;
    GRANT USAGE ON SCHEMA internal TO reader;
    REVOKE EXECUTE ON FUNCTION guard() FROM PUBLIC;
    ALTER TABLE notes OWNER TO owner;
    ALTER DEFAULT PRIVILEGES IN SCHEMA internal GRANT SELECT ON TABLES TO reader;
    """,
    "VACUUM (FREEZE, ANALYZE) users, stamps",
    "ANALYZE",
)
_LEDGER = (
    """
    CREATE TABLE entries (id int PRIMARY KEY, amount int NOT NULL);
    INSERT INTO entries SELECT i, i FROM generate_series(1, 200) i;
    CREATE TABLE rates (kind text PRIMARY KEY, rate numeric NOT NULL, at timestamptz);
    INSERT INTO rates VALUES ('a', 1.50, NULL), ('b', 2, now());
    CREATE MATERIALIZED VIEW current_rates AS SELECT rate, kind, at FROM rates;
    """,
    "ANALYZE",
)
_DATABASE = {"shop": _SHOP, "ledger": _LEDGER}
#: the first commits behind the base backup
_FIRST = {
    "shop": ("INSERT INTO heartbeat SELECT clock_timestamp()", "INSERT INTO stamps (user_id) VALUES (1)")
}
#: what the archive must bring: it is not in the base backup
_BEFORE_TARGET = {
    "shop": (
        "INSERT INTO heartbeat SELECT clock_timestamp()",
        "INSERT INTO stamps (user_id) SELECT 1 + i % 400 FROM generate_series(1, 50) i",
        "INSERT INTO users (email, balance) VALUES ('late@example.org', 1)",
        "INSERT INTO heartbeat SELECT clock_timestamp()",
    ),
    "ledger": ("INSERT INTO entries VALUES (1000, 1)",),
}
#: the damage, and what rightly went on meanwhile
_AFTER_TARGET = {
    "shop": (
        "INSERT INTO heartbeat SELECT clock_timestamp()",
        "DELETE FROM rewards WHERE id < 50",
        "DROP TABLE soft",
        "UPDATE notes SET body = 'gone' WHERE id % 2 = 0",
        "INSERT INTO stamps (user_id) SELECT 2 FROM generate_series(1, 20) i",
        "SELECT nextval('tickets') FROM generate_series(1, 30)",
        "CREATE TABLE later (id int PRIMARY KEY, at date)",
        "ALTER TABLE notes ADD COLUMN later int",
        "CREATE OR REPLACE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN NULL; END'",
        "REVOKE INSERT ON rewards FROM app",
        "ALTER ROLE app CONNECTION LIMIT 0",
        "ALTER DATABASE shop SET default_transaction_read_only = on",
    ),
    "ledger": ("CREATE ROLE newcomer",),
}
#: the same as the runbook reads it from the log
_CHANGES = (
    TableChange(database="shop", table="public.heartbeat", inserted=1),
    TableChange(database="shop", table="public.rewards", deleted=49),
    TableChange(database="shop", table="public.soft", storage_replaced=True),
    TableChange(database="shop", table="public.notes", updated=150),
    TableChange(database="shop", table="public.stamps", inserted=20),
)

STORY = Story(
    databases=(
        Database(
            name="shop", critical_tables=_CRITICAL, append_only_tables=("public.stamps",),
            heartbeat=Heartbeat(table="public.heartbeat"), sanity=_SANITY,
        ),
        Database(name="ledger", critical_tables=("public.entries",)),
    ),
    cluster=_CLUSTER,
    inside=_DATABASE,
    first=_FIRST,
    before=_BEFORE_TARGET,
    after=_AFTER_TARGET,
    changes=_CHANGES,
)  # fmt: skip
