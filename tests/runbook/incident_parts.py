"""What the shop is made of: names, passwords, migrations, the operators' scripts."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fixtures.postgres.binaries import Binaries

ROOT = Path(__file__).resolve().parents[2]
APP = Path(__file__).with_name("incident_app.py")
GUIDE = ROOT / "docs" / "how-to" / "incident.md"
NAME = "shop-production"
ADMIN = "dba"
PASSWORD = "dba-secret-7421"
APP_PASSWORD = "app:secret/8302"
PASSWORD_ENV = "SHOP_DBA_PASSWORD"
#: what the lock changes and a release must put back exactly
CONNECTION_LIMIT = 57
OWNER, REVIEWER = "A. Keller", "C. Okafor"

MIGRATIONS = {
    "20260101000000_init": """
CREATE TABLE shop.customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text NOT NULL UNIQUE);
CREATE TABLE shop.orders (
    id bigserial PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES shop.customers,
    cents int NOT NULL,
    key text NOT NULL UNIQUE
);
GRANT USAGE ON SCHEMA shop TO shop_app;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA shop TO shop_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA shop TO shop_app;
""",
    "20260115000000_payments": """
CREATE TABLE shop.payments (
    order_id bigint PRIMARY KEY REFERENCES shop.orders, cents int NOT NULL, settled bool NOT NULL DEFAULT false
);
GRANT SELECT, INSERT, UPDATE ON shop.payments TO shop_app;
""",
    "20260301000000_notes": "ALTER TABLE shop.orders ADD COLUMN note text;\n",
}
LEDGER = """
CREATE TABLE shop._prisma_migrations (
    id varchar(36) PRIMARY KEY, checksum varchar(64) NOT NULL, finished_at timestamptz,
    migration_name varchar(255) NOT NULL, logs text, rolled_back_at timestamptz,
    started_at timestamptz NOT NULL DEFAULT now(), applied_steps_count int NOT NULL DEFAULT 0
)
"""
#: database -> what is there before the first migration
BEFORE_MIGRATIONS = {
    "postgres": (
        "CREATE ROLE shop_owner NOLOGIN",
        f"CREATE ROLE shop_app LOGIN PASSWORD '{APP_PASSWORD}'",
        f"CREATE DATABASE shop OWNER shop_owner CONNECTION LIMIT {CONNECTION_LIMIT}",
        "ALTER DATABASE shop SET default_transaction_read_only = 'off'",
        "CREATE DATABASE shop_history",
    ),
    "shop_history": (
        "CREATE TABLE public.closed_orders AS SELECT n AS id FROM generate_series(1, 500) AS n",
    ),
    "shop": (
        "CREATE SCHEMA shop AUTHORIZATION shop_owner",
        "SET ROLE shop_owner",
        LEDGER,
        # a deploy that failed once, was resolved, and went through the second time
        (
            "INSERT INTO shop._prisma_migrations (id, checksum, migration_name, rolled_back_at)"
            " VALUES ('failed-once', 'of an older file', '20260115000000_payments', now())"
        ),
    ),
}
ROWS = (
    "INSERT INTO shop.customers (email) SELECT n || '@example.com' FROM generate_series(1, 200) AS n",
    (
        "INSERT INTO shop.orders (customer_id, cents, key)"
        " SELECT 1 + n % 200, n, 'old-' || n FROM generate_series(1, 400) AS n"
    ),
    "INSERT INTO shop.payments SELECT id, cents, true FROM shop.orders",
)
SCRIPTS = {
    "shop": 'exec @PYTHON@ @APP@ "$@"',
    # every change of the env file is a rename: the application may read it at any moment
    "maintenance": """
case "$1" in
  on|off) { grep -v '^MAINTENANCE=' @ENV@; echo "MAINTENANCE=$1"; } > @ENV@.new && mv @ENV@.new @ENV@ ;;
  status) sed -n 's/^MAINTENANCE=//p' @ENV@ ;;
esac
""",
    "database-url": """
case "$1" in
  write) { grep -v '^DATABASE_URL=' @ENV@; printf 'DATABASE_URL=%s\\n' "$DATABASE_URL"; } > @ENV@.new && mv @ENV@.new @ENV@ ;;
  read) sed -n 's/^DATABASE_URL=//p' @ENV@ ;;
esac
""",
    # paused means: the process is not there
    "settlement": """
pid=$(cat @HOME@/settlement.pid 2>/dev/null)
runs() { [ -n "$pid" ] && grep -q settle "/proc/$pid/cmdline" 2>/dev/null; }
case "$1" in
  pause) runs && kill "$pid"; while runs; do sleep 0.02; done ;;
  resume)
    runs && exit 0
    setsid @PYTHON@ @APP@ settle @ENV@ </dev/null >/dev/null 2>&1 &
    echo $! > @HOME@/settlement.pid
    pid=$!; i=0; until runs; do i=$((i+1)); [ $i -gt 100 ] && exit 1; sleep 0.02; done ;;
  status) if runs; then echo off; else echo on; fi ;;
esac
""",
    "fence": "echo fenced >> @HOME@/fenced; ! test -e @HOME@/pg/data/postmaster.pid",
}


@dataclass(frozen=True)
class Order:
    """What a customer was told: an order was taken, between two moments."""

    key: str
    cents: int
    sent: datetime
    taken: datetime


def configuration(home: Path, binaries: Binaries, *, port: int, app_port: int) -> str:
    """Return the guide's configuration with this shop's paths and ports, and windows short enough for a test."""
    text = GUIDE.read_text().partition("```toml\n")[2].partition("```")[0]
    changes = {
        "/usr/lib/postgresql/18/bin": str(binaries.bin_dir),
        'run_as = "postgres" ': f'run_as = "{binaries.user}" ' if binaries.user else "#",
        "port=5432": f"port={port}",
        ":8080": f":{app_port}",
        '"/mnt/safety/shop"': f'"{home}/safety"\nsame_filesystem = "a test has one disk"',
        '"/mnt/restore/shop"': f'"{home}/restored"',
        "/mnt/archive-2/shop": f"{home}/archive-2",
        "/mnt/backups-2/shop": f"{home}/backups-2",
        "/mnt/tickets": f"{home}/tickets",
        "/srv/shop": str(home),
        'window = "30min"': 'window = "3s"',
        'interval = "15s"': 'interval = "500ms"',
        "p95_ms = 300": "p95_ms = 5000",
        "p99_ms = 1000": "p99_ms = 9000\nmin_requests = 1",
    }
    for old, new in changes.items():
        assert old in text, f"{GUIDE.name} has no {old!r}"
        text = text.replace(old, new)
    return f'lease_directory = "{home}/leases"\n{text}\n[lock]\nproof_window = "500ms"\n'
