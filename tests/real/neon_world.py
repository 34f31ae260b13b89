"""A small production behind the simulator of Neon, and a client that speaks to it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from fixtures.command import end_job, wait_for
from fixtures.drill.neon_simulator.description import find_description
from fixtures.drill.neon_simulator.owner import CUSTOMER, OWNER
from fixtures.drill.neon_simulator.setup import Address, Setup, start_simulator, wait_listening
from fixtures.errors import ToolError
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.server import Server
from fixtures.postgres.session import Endpoint, connect
from tests.missing import missing
from tests.real.forked_world import FORKS, production_of

TOKEN = "simulated-token"
PASSWORD = "production's password"
DATABASE = "neondb"


@dataclass(frozen=True, kw_only=True)
class NeonWorld:
    """A production and the simulator in front of it."""

    home: Path
    server: Server
    address: Address
    http: httpx.Client

    def call(self, method: str, path: str, *, status: int | None = None, **more: Any) -> Any:
        """Ask the vendor's API below the project; compare the status; return the body."""
        answer = self.http.request(method, f"/projects/{self.address.project_id}{path}", **more)
        if status is not None:
            assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    def own(self, method: str, path: str = "", **more: Any) -> Any:
        """Ask the simulator's own paths."""
        answer = self.http.request(method, f"{self.address.own}{path}", **more)
        assert answer.is_success, answer.text
        return answer.json()

    def wait(self, answer: dict[str, Any], *, status: str = "finished") -> None:
        """Wait for an answer's operations."""
        for each in answer["operations"]:
            self.wait_operation(each["id"], status=status)

    def wait_operation(self, operation_id: str, *, status: str = "finished") -> dict[str, Any]:
        """Wait until an operation is over."""
        over = {"finished", "skipped", "failed", "error", "cancelled"}
        seen: list[dict[str, Any]] = []

        def ended() -> bool:
            seen[:] = [self.call("GET", f"/operations/{operation_id}", status=200)["operation"]]
            return seen[0]["status"] in over

        wait_for(ended, timeout_s=120, what=f"operation {operation_id} is over")
        assert seen[0]["status"] == status, seen[0]
        return seen[0]

    def create(self, name: str, **branch: Any) -> dict[str, Any]:
        """Make a branch with an endpoint and wait for it."""
        made = self.call(
            "POST", "/branches", status=201,
            json={"branch": {"name": name, **branch}, "endpoints": [{"type": "read_write"}]},
        )  # fmt: skip
        self.wait(made)
        return made["branch"]

    def endpoint(self, branch_id: str, *, role: str = OWNER) -> Endpoint:
        """Return where a branch answers, from its connection string."""
        query = {"branch_id": branch_id, "role_name": role, "database_name": DATABASE, "pooled": "false"}
        return Endpoint.parse(self.call("GET", "/connection_uri", status=200, params=query)["uri"])

    def rows(self, branch_id: str) -> list[int]:
        """Return the rows a branch holds."""
        with connect(self.endpoint(branch_id)) as session:
            return [row[0] for row in session.rows("SELECT id FROM public.t ORDER BY id")]

    def insert(self, row: int, *, branch_id: str | None = None) -> datetime:
        """Commit a row; return a moment behind it and before whatever comes next."""
        where = self.endpoint(branch_id or self.address.branch_id)
        with connect(where) as session:
            session.do("INSERT INTO public.t VALUES (%s)", (row,))
            at = session.value("SELECT clock_timestamp()")
        time.sleep(0.002)  # time itself is the subject
        return at.astimezone(UTC)


def needs_description() -> None:
    """Leave a test out where nobody has fetched the vendor's description."""
    try:
        find_description()
    except ToolError:
        missing("the API description of Neon (make neon-api)")


@contextmanager
def neon_world(public_dir: Path, binaries: Binaries) -> Iterator[NeonWorld]:
    """Make a production with an archive and a base backup, and simulate Neon in front of it."""
    needs_description()
    with production_of(
        public_dir, binaries, service="neon", customer=CUSTOMER, password=PASSWORD, database=DATABASE
    ) as (home, server):
        setup = Setup.of(
            server, base=home / "backups" / "base", archive=home / "archive", folder=home / FORKS,
            token=TOKEN, project_name="simulated", database=DATABASE, passwords={OWNER: PASSWORD},
        )  # fmt: skip
        setup.write(home / "setup.json")
        simulator = start_simulator(home / "setup.json", home / "address.json", logs=home / "logs")
        try:
            address = wait_listening(simulator, home / "address.json")
            with httpx.Client(
                base_url=address.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30
            ) as http:
                yield NeonWorld(home=home, server=server, address=address, http=http)
        finally:
            end_job(simulator)
