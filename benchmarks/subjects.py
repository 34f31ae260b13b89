"""A server's database as the checks see a restored copy, with itself as production."""

from datetime import UTC, datetime

from fixtures.checks import Subject
from fixtures.postgres.server import Server
from fixtures.providers.base import Cluster, InstanceRef, RestoredInstance, Target, TargetKind
from fixtures.settings import Database


def examined(server: Server, database: Database, *, jobs: int) -> Subject:
    """Return a subject whose groups share what they read, as in a run."""
    ref = InstanceRef(
        run_id="bench", name=str(server.data), host=str(server.sockets), port=server.port, user="postgres"
    )
    instance = RestoredInstance(
        ref=ref, backup_id="", paused=False, stopped_at=None, last_commit_at=None, last_commit_xid=None,
        stop_reason="", timeline=None, seconds=0.0,
    )  # fmt: skip
    return Subject(
        step="s07.bench", restored=server.endpoint, instance=instance, cluster=Cluster(), databases=(database,),
        target=Target(kind=TargetKind.TIME, value="", at=datetime.now(UTC)), production=server.endpoint, jobs=jobs,
        shared={},
    )  # fmt: skip
