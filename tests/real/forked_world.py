"""
A small production with an archive and a base backup, whose customer is no superuser: what simulators stand on.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fixtures.command import run
from fixtures.drill.cluster import archive_command, take_base_backup
from fixtures.drill.forks.owner import HBA, Customer
from fixtures.evidence import Secret
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.server import Server, free_port
from fixtures.postgres.session import connect

#: folder of what is forked
FORKS = "forks"


@contextmanager
def production_of(
    public_dir: Path,
    binaries: Binaries,
    *,
    service: str,
    customer: Customer,
    password: str,
    database: str,
    settings: str = "",
) -> Iterator[tuple[Path, Server]]:
    """Yield its home and its server; afterwards every server below the home is ended, and the home removed."""
    home = Path(tempfile.mkdtemp(prefix=f"{service}-", dir=public_dir))
    home.chmod(0o755)
    for name in ("archive", "backups", FORKS, "logs"):
        (home / name).mkdir()
    binaries.own(home)
    server = Server(binaries, home / "data", free_port(), home, "postgres", home / "logs")
    server.initdb()
    with (server.data / "postgresql.conf").open("a") as file:
        command = archive_command(home / "archive").replace("'", "''")
        file.write(
            "listen_addresses = '127.0.0.1'\nshared_buffers = 16MB\narchive_mode = on\nwal_level = replica\n"
            f"track_commit_timestamp = on\nmax_connections = 30\narchive_command = '{command}'\n"
            f"{settings}\n"
        )
    with (server.data / "pg_hba.conf").open("a") as file:
        file.write(f"{HBA}\n")
    job = server.start(name="production")
    try:
        server.wait_ready(job)
        with connect(server.endpoint) as session:
            customer.create(session, password=Secret(password))
            session.do(f"CREATE DATABASE {database} OWNER {customer.name}")
        with connect(server.endpoint.on(database)) as session:
            session.do("CREATE TABLE public.t (id int PRIMARY KEY)")
            session.do(f"ALTER TABLE public.t OWNER TO {customer.name}")
        take_base_backup(server, home / "backups" / "base")
        yield home, server
    finally:
        for data in (*(home / FORKS).glob("*/*-*"), server.data):
            Server(binaries, data, server.port, home, "postgres", home / "logs").stop(mode="immediate")
        run(["rm", "-rf", home], timeout_s=60)
