"""Clean productions of ten shapes, in one cluster: what they are is no fault, and must raise no alarm."""

from fixtures.settings import Database
from tests.faults.world import Story

_PLAIN = (
    "CREATE TABLE plain (id int PRIMARY KEY, body text)",
    "INSERT INTO plain SELECT i, 'x' FROM generate_series(1, 50) i",
)

_INSIDE: dict[str, tuple[str, ...]] = {
    "empty": (),
    "types": (
        """
        CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION cube; CREATE EXTENSION ltree;
        CREATE TYPE colour AS ENUM ('red', 'green');
        CREATE TYPE pair AS (a int, b text);
        CREATE DOMAIN positive AS int CHECK (value > 0);
        CREATE DOMAIN small AS positive CHECK (value < 100) NOT NULL;
        CREATE TABLE everything (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), a int2, b numeric(10, 2), c float8,
            d money,
            e json, f jsonb, h hstore, i citext, j inet, k macaddr, l bit(8), m varbit, n tsvector, o tsquery, p point, q box,
            r polygon, s int4range, t tstzmultirange, u interval, v timetz, w bytea, x pair, y colour[], z small DEFAULT 5,
            aa char(5), ab name, ac oid, ad pg_lsn, ae xid8, af jsonpath, ag ltree, ah cube, ai text COLLATE "C");
        INSERT INTO everything (a, b, c, d, e, f, h, i, l, n, p, s, u, w, x, y) SELECT i, 'NaN', '-0', 1, '{"a": 1}', '{}', 'a=>1', 'A',
            B'00000001', 'fat cat', '(1,2)', '[1,5)', '24h', '\\x00ff', ROW(1, NULL::text)::pair, '{red}'::colour[]
            FROM generate_series(1, 20) i;
        INSERT INTO everything DEFAULT VALUES;
        CREATE TABLE nothing ();
        INSERT INTO nothing DEFAULT VALUES;
        CREATE TABLE lost_columns (a int, b int, c int);
        ALTER TABLE lost_columns DROP COLUMN b;
        INSERT INTO lost_columns VALUES (1, 2);
        ALTER TABLE lost_columns ADD COLUMN d int DEFAULT 7;
        """,
    ),
    "many": (
        """
        DO $$ BEGIN
            FOR i IN 1..150 LOOP
                EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, parent int REFERENCES t%s)', i, greatest(i - 1, 1));
                EXECUTE format('INSERT INTO t%s VALUES (1, 1)', i);
            END LOOP;
        END $$
        """,
    ),
    "parts": (
        """
        CREATE TABLE p (at date, kind text, id int, PRIMARY KEY (at, kind, id)) PARTITION BY RANGE (at);
        CREATE TABLE p_old PARTITION OF p FOR VALUES FROM (MINVALUE) TO ('2025-01-01');
        CREATE TABLE p_new PARTITION OF p FOR VALUES FROM ('2025-01-01') TO ('2026-01-01') PARTITION BY LIST (kind);
        CREATE TABLE p_new_a PARTITION OF p_new FOR VALUES IN ('a') PARTITION BY HASH (id);
        CREATE TABLE p_new_a_0 PARTITION OF p_new_a FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE p_new_a_1 PARTITION OF p_new_a FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        CREATE TABLE p_new_rest PARTITION OF p_new DEFAULT;
        CREATE TABLE p_rest PARTITION OF p DEFAULT;
        CREATE TABLE child (at date, kind text, id int, FOREIGN KEY (at, kind, id) REFERENCES p);
        INSERT INTO p SELECT date '2024-06-01' + i, CASE i % 3 WHEN 0 THEN 'a' ELSE 'b' END, i FROM generate_series(1, 1000) i;
        INSERT INTO child SELECT * FROM p LIMIT 100;
        CREATE TABLE base (id int PRIMARY KEY, at date);
        CREATE TABLE derived (more text) INHERITS (base);
        INSERT INTO base VALUES (1, now());
        INSERT INTO derived VALUES (1, now(), 'x');
        """,
    ),
    "Odd Näme": (
        """
        CREATE SCHEMA "we.ird ""schema";
        CREATE TABLE "we.ird ""schema"."Tab.le; DROP" ("Col umn" int PRIMARY KEY, "select" text CHECK ("select" <> '''%s'), "%" int UNIQUE);
        INSERT INTO "we.ird ""schema"."Tab.le; DROP" VALUES (1, 'x', 2);
        CREATE TABLE "ünïcödé" (id serial PRIMARY KEY, "p%s" int REFERENCES "we.ird ""schema"."Tab.le; DROP");
        INSERT INTO "ünïcödé" ("p%s") VALUES (1), (NULL);
        CREATE SEQUENCE "Se.quence" INCREMENT -3 MAXVALUE 100 START 100 CYCLE;
        SELECT nextval('"Se.quence"');
        CREATE FUNCTION "f.n"("a%" text) RETURNS text LANGUAGE sql AS 'SELECT $1';
        """,
    ),
    "ascii": (
        "CREATE TABLE old (id int PRIMARY KEY, body text)",
        "INSERT INTO old VALUES (1, E'\\\\xe4')",
        "CREATE INDEX old_body ON old (body)",
    ),
    "strict": (
        """
        CREATE TABLE secrets (id int PRIMARY KEY, owner name, body text);
        ALTER TABLE secrets ENABLE ROW LEVEL SECURITY;
        ALTER TABLE secrets FORCE ROW LEVEL SECURITY;
        CREATE POLICY own ON secrets USING (owner = current_user);
        CREATE POLICY never ON secrets AS RESTRICTIVE USING (false);
        INSERT INTO secrets SELECT i, 'nobody', 'x' FROM generate_series(1, 20) i;
        CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no change of structure''; END';
        CREATE FUNCTION pg_catalog_like(text) RETURNS bool LANGUAGE sql AS 'SELECT false';
        """,
        "CREATE EVENT TRIGGER refuses ON ddl_command_start EXECUTE FUNCTION refuse()",
    ),
    "outward": (
        """
        CREATE EXTENSION postgres_fdw; CREATE EXTENSION dblink; CREATE EXTENSION vector;
        CREATE EXTENSION amcheck; CREATE EXTENSION pg_visibility;
        CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '192.0.2.1', dbname 'x');
        CREATE USER MAPPING FOR reader SERVER far OPTIONS (user 'u', password 'p');
        CREATE FOREIGN TABLE there (id int) SERVER far;
        CREATE TABLE embeddings (id int PRIMARY KEY, v vector(3));
        INSERT INTO embeddings VALUES (1, '[1,2,3]');
        CREATE PUBLICATION all_of_it FOR ALL TABLES;
        CREATE SCHEMA cron;
        CREATE TABLE cron.job (jobid int, jobname text, active boolean);
        INSERT INTO cron.job VALUES (1, 'vacuum', true);
        """,
    ),
    "states": (
        """
        CREATE EXTENSION btree_gist;
        CREATE TABLE parent (id int, valid daterange, PRIMARY KEY (id, valid WITHOUT OVERLAPS));
        CREATE TABLE child (id int, valid daterange, FOREIGN KEY (id, PERIOD valid) REFERENCES parent (id, PERIOD valid));
        INSERT INTO parent VALUES (1, '[2025-01-01,2025-06-01)'), (1, '[2025-06-01,2026-01-01)');
        INSERT INTO child VALUES (1, '[2025-02-01,2025-07-01)');
        CREATE TABLE people (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, boss int REFERENCES people NOT ENFORCED, a int,
            twice int GENERATED ALWAYS AS (a * 2) VIRTUAL, thrice int GENERATED ALWAYS AS (a * 3) STORED);
        INSERT INTO people (boss, a) VALUES (1, 1), (NULL, NULL);
        ALTER TABLE people ADD CONSTRAINT later CHECK (a > 5) NOT VALID;
        CREATE TABLE orphans (parent int);
        INSERT INTO orphans VALUES (1);
        CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
        CREATE TRIGGER off BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION noop();
        ALTER TABLE people DISABLE TRIGGER off;
        CREATE INDEX broken ON people (a);
        UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken'::regclass;
        CREATE UNLOGGED TABLE cache (i int);
        CREATE MATERIALIZED VIEW never AS SELECT 1 AS one WITH NO DATA;
        CREATE MATERIALIZED VIEW once AS SELECT count(*) FROM people;
        SELECT lo_from_bytea(0, 'a'), lo_create(0);
        COMMENT ON TABLE people IS 'x';
        """,
    ),
    "latin": _PLAIN,
}
#: made after the cluster's roles, each with what is special about it
_CLUSTER = (
    "CREATE ROLE reader NOLOGIN",
    "ALTER ROLE postgres SET row_security = off",
    *(f'CREATE DATABASE "{name}"' for name in _INSIDE if name not in {"ascii", "latin"}),
    "CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'",
    "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'",
    "ALTER DATABASE latin SET timezone = 'Asia/Kathmandu'",
    "ALTER DATABASE many SET work_mem = '64kB'",
)
_AFTER = "CREATE TABLE after_target (id int)"

STORY = Story(
    databases=tuple(
        Database(name=name, critical_tables=("public.plain",) if name == "latin" else ()) for name in _INSIDE
    ),
    cluster=_CLUSTER,
    inside=_INSIDE,
    first={"latin": ("INSERT INTO plain VALUES (100, 'a')",)},
    before={"latin": ("INSERT INTO plain VALUES (101, 'b')",)},
    after={name: (_AFTER,) for name in _INSIDE if name != "strict"}
    | {
        "strict": (
            "ALTER DATABASE strict SET statement_timeout = '1ms'",
            "INSERT INTO secrets VALUES (100, 'x', 'y')",
        )
    },
)
