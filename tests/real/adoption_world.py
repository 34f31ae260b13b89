"""Somebody's production, as an inspection meets it: odd names, partitions, two databases, two ledgers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fixtures.postgres.server import Server
from tests.real.checks_lab import running, script

PASSWORD = "adoption-secret-5501"
SHOP = """
CREATE SCHEMA "Sales";
CREATE TYPE "Sales"."Mood" AS ENUM ('good', 'bad');
CREATE TABLE "Sales"."Customer" (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "firstName" text, email text UNIQUE, "emailVerified" bool,
    name text, "createdAt" timestamp(3) NOT NULL DEFAULT now());
CREATE TABLE "Sales"."Order" (
    id bigserial PRIMARY KEY, "customerId" bigint NOT NULL REFERENCES "Sales"."Customer", cents int NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz, "weird ""col" "Sales"."Mood");
CREATE INDEX ON "Sales"."Order" (created_at);
-- a reference that no foreign key holds, and one that is broken today
CREATE TABLE "Sales".shipments (
    id bigserial PRIMARY KEY, order_id bigint, customer_id bigint, started_at timestamptz, finished_at timestamptz);
CREATE TABLE public.events (id bigint NOT NULL, at timestamptz NOT NULL, kind text, PRIMARY KEY (id, at, kind)) PARTITION BY RANGE (at);
CREATE TABLE public.events_old PARTITION OF public.events FOR VALUES FROM (MINVALUE) TO ('2025-01-01');
CREATE TABLE public.events_new PARTITION OF public.events FOR VALUES FROM ('2025-01-01') TO (MAXVALUE) PARTITION BY LIST (kind);
CREATE TABLE public.events_new_a PARTITION OF public.events_new FOR VALUES IN ('a');
CREATE TABLE public.events_new_b PARTITION OF public.events_new DEFAULT;
CREATE TABLE public.heartbeat (at timestamptz PRIMARY KEY DEFAULT clock_timestamp());
CREATE TABLE public._prisma_migrations (
    id varchar(36) PRIMARY KEY, checksum varchar(64) NOT NULL, finished_at timestamptz, migration_name varchar(255) NOT NULL,
    logs text, rolled_back_at timestamptz, started_at timestamptz NOT NULL DEFAULT now(), applied_steps_count int NOT NULL DEFAULT 0);
CREATE UNLOGGED TABLE public.scratchpad (id int);
CREATE TABLE public."a.dotted" (id int PRIMARY KEY);
CREATE TABLE public."evil
[roles]" (id int PRIMARY KEY);
CREATE TABLE public.sessions (id int PRIMARY KEY, token text);
INSERT INTO "Sales"."Customer" ("firstName", email, name) SELECT 'F' || n, n || '@example.com', 'N' FROM generate_series(1, 50) n;
INSERT INTO "Sales"."Order" ("customerId", cents) SELECT 1 + n % 50, n FROM generate_series(1, 300) n;
UPDATE "Sales"."Order" SET updated_at = created_at WHERE id < 10;
INSERT INTO "Sales".shipments (order_id, customer_id, started_at, finished_at)
    SELECT n, 1000 + n, now(), now() FROM generate_series(1, 20) n;
INSERT INTO public.events SELECT n, timestamptz '2024-12-01Z' + n * interval '1 day', CASE WHEN n % 2 = 0 THEN 'a' ELSE 'b' END
    FROM generate_series(1, 100) n;
INSERT INTO public.heartbeat SELECT clock_timestamp() - n * interval '1 second' FROM generate_series(1, 60) n;
INSERT INTO public._prisma_migrations (id, checksum, migration_name, finished_at) VALUES ('1', 'c', '20260101000000_init', now());
INSERT INTO public._prisma_migrations (id, checksum, migration_name, started_at)
    VALUES ('2', 'c', '20260201000000_failed', now() + interval '1 s');
INSERT INTO public."evil
[roles]" VALUES (1);
"""
BILLING = """
CREATE TABLE public.alembic_version (version_num varchar(32) PRIMARY KEY);
INSERT INTO public.alembic_version VALUES ('8f3c1d');
CREATE TABLE public.invoices (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), amount numeric(12, 2), iban text, issued_on date);
INSERT INTO public.invoices (amount, iban) SELECT n, 'DE' || n FROM generate_series(1, 30) n;
"""


@contextmanager
def production(server: Server, **settings: str) -> Iterator[Server]:
    """Start a cluster and fill it."""
    # autovacuum uses transaction ids of its own, at any moment
    quiet = {"listen_addresses": "127.0.0.1", "fsync": "off", "autovacuum": "off"}
    with running(server, {**quiet, **settings}):
        script(
            server.endpoint,
            f"CREATE ROLE dba SUPERUSER LOGIN PASSWORD '{PASSWORD}'",
            "CREATE ROLE shop_app LOGIN",
            "CREATE ROLE nobody_much LOGIN",
            "CREATE DATABASE shop",
            'CREATE DATABASE "Billing 2"',
            "CREATE DATABASE empty",
        )
        script(server.endpoint.on("shop"), SHOP, "ANALYZE")
        script(server.endpoint.on("Billing 2"), BILLING, "ANALYZE")
        yield server


def dsn(server: Server, *, user: str = "dba", database: str = "shop") -> str:
    """Return a connection string over the socket."""
    return f"host={server.sockets} port={server.port} user={user} dbname={database}"


def folder(home: Path, name: str) -> Path:
    """Make a folder."""
    made = home / name
    made.mkdir(exist_ok=True)
    return made
