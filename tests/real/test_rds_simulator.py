"""The simulator of RDS and Aurora: real recoveries behind simulated calls, both held to the vendor's description."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from fixtures.command import end_job, run, wait_for
from fixtures.drill.forks.process import ROOT
from fixtures.drill.rds_simulator.description import Description, MissError, RefusedError
from fixtures.drill.rds_simulator.master import CUSTOMER, MASTER
from fixtures.drill.rds_simulator.moto_account import GROUPS, REGION
from fixtures.drill.rds_simulator.setup import Address, Setup, start_simulator, wait_listening
from fixtures.errors import DatabaseError
from fixtures.evidence import Secret
from fixtures.postgres.server import Server
from fixtures.postgres.session import Endpoint, connect
from tests.real.forked_world import FORKS, production_of

KEY, SECRET, PASSWORD = "DRILLKEY", "the-drills-own-secret", "master's password"
DATABASE, SOURCE = "stampcard", "stampcard"
BOUND_S = 120


@dataclass(frozen=True, kw_only=True)
class RdsWorld:
    """A production and the simulator in front of it."""

    home: Path
    server: Server
    address: Address
    rds: Any

    def shown(self, name: str) -> dict[str, Any]:
        """Ask for an instance."""
        return self.rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]

    def wait(self, name: str, status: str = "available") -> dict[str, Any]:
        """Wait for a status."""
        wait_for(
            lambda: self.shown(name)["DBInstanceStatus"] == status, timeout_s=BOUND_S, what=f"{name} {status}"
        )
        return self.shown(name)

    def rows(self, shown: dict[str, Any]) -> list[int]:
        """Read an instance's rows as its master user."""
        where = shown["Endpoint"]
        endpoint = Endpoint(
            where["Address"], where["Port"], shown["MasterUsername"], DATABASE, Secret(PASSWORD)
        )
        with connect(endpoint) as session:
            return [row[0] for row in session.rows("SELECT id FROM public.t ORDER BY id")]

    def insert(self, row: int) -> datetime:
        """Commit a row on production; return the whole second behind it, which has passed."""
        with connect(self.server.endpoint.on(DATABASE)) as session:
            session.do("INSERT INTO public.t VALUES (%s)", (row,))
        second = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
        wait_for(lambda: datetime.now(UTC) > second, timeout_s=BOUND_S, what=f"it is {second}")
        return second

    def restorable(self, second: datetime) -> None:
        """Wait until production can be restored to a moment."""
        wait_for(
            lambda: self.shown(SOURCE)["LatestRestorableTime"] >= second, timeout_s=BOUND_S, what=str(second)
        )

    def restore(self, name: str, **more: Any) -> dict[str, Any]:
        """Restore production and wait for the copy."""
        self.rds.restore_db_instance_to_point_in_time(
            SourceDBInstanceIdentifier=SOURCE, TargetDBInstanceIdentifier=name,
            **more or {"UseLatestRestorableTime": True},
        )  # fmt: skip
        return self.wait(name)

    def misses(self) -> list[str]:
        """Ask for answers that did not keep to the description."""
        return httpx.get(self.address.own).json()["misses"]


@pytest.fixture(scope="module")
def world(public_dir: Path, binaries) -> Iterator[RdsWorld]:
    """One account for all tests."""
    with (
        production_of(
            public_dir, binaries, service="rds", customer=CUSTOMER, password=PASSWORD, database=DATABASE,
            settings="archive_timeout = 2s",
        ) as (home, server),
        simulator(home, server, clustered=False) as address,
    ):  # fmt: skip
        yield RdsWorld(home=home, server=server, address=address, rds=client(address))


@contextmanager
def simulator(home: Path, server: Server, *, clustered: bool) -> Iterator[Address]:
    """Start one over a production."""
    facts = Setup.facts(server, base=home / "backups" / "base", archive=home / "archive", folder=home / FORKS)
    files = [home / f"{name}-{clustered}.json" for name in ("setup", "address")]
    setup = Setup(**facts, key=KEY, secret=SECRET, identifier=SOURCE, master=MASTER, clustered=clustered)
    setup.write(files[0])
    job = start_simulator(*files, logs=home / f"logs-{clustered}")
    try:
        yield wait_listening(job, files[1])
    finally:
        end_job(job)


def client(address: Address, *, key: str = KEY, secret: str = SECRET) -> Any:
    return boto3.client(
        "rds", region_name=REGION, endpoint_url=address.url, aws_access_key_id=key, aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}, proxies={}),
    )  # fmt: skip


def fence(world: RdsWorld) -> list[str]:
    """The fence's command, as a configuration gives it: no environment but what it names."""
    return [
        "env", f"AWS_ENDPOINT_URL_RDS={world.address.url}", f"AWS_ACCESS_KEY_ID={KEY}", f"AWS_SECRET_ACCESS_KEY={SECRET}",
        sys.executable, "-m", "fixtures.providers.rds.fence", f"--region={REGION}",
    ]  # fmt: skip


def refused(call: Any, **sent: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(**sent)
    return error.value.response["Error"]["Code"]


def test_a_copy_holds_what_was_committed_up_to_a_second_and_has_what_was_sent(world: RdsWorld) -> None:
    """It is made in a while, answers at an address of its own, and moto's wrong answers do not come through."""
    second = world.insert(1)
    world.insert(2)
    world.restorable(second)

    begun = world.rds.restore_db_instance_to_point_in_time(
        SourceDBInstanceIdentifier=SOURCE, TargetDBInstanceIdentifier="copy", RestoreTime=second,
        VpcSecurityGroupIds=[GROUPS["isolation"]], Tags=[{"Key": "restore-runbook:run", "Value": "one"}],
    )["DBInstance"]  # fmt: skip
    shown = world.wait("copy")
    source = world.shown(SOURCE)

    assert begun["DBInstanceStatus"] == "creating"
    assert "Endpoint" not in begun
    assert world.rows(shown) == [1]
    assert world.rows(source) == [1, 2]
    assert [each["VpcSecurityGroupId"] for each in shown["VpcSecurityGroups"]] == [GROUPS["isolation"]]
    assert (source["DeletionProtection"], shown["DeletionProtection"]) == (True, False)
    assert shown["TagList"] == [{"Key": "restore-runbook:run", "Value": "one"}]
    assert shown["DbiResourceId"] != source["DbiResourceId"]
    assert shown["Endpoint"]["Port"] != source["Endpoint"]["Port"]
    assert "ReadReplicaSourceDBInstanceIdentifier" not in shown
    assert world.misses() == []


def test_a_copy_is_changed_restarted_kept_and_deleted_over_time(world: RdsWorld) -> None:
    """Every change has its status; a busy or protected one is refused; a last snapshot holds its rows."""
    copy = {"DBInstanceIdentifier": "changed"}
    world.restore("changed", UseLatestRestorableTime=True, DeletionProtection=True)

    changed = world.rds.modify_db_instance(**copy, VpcSecurityGroupIds=[GROUPS["production"]])["DBInstance"]
    assert [each["Status"] for each in changed["VpcSecurityGroups"]] == ["adding"]
    world.wait("changed", "modifying")
    assert refused(world.rds.reboot_db_instance, **copy) == "InvalidDBInstanceState"
    assert [each["Status"] for each in world.wait("changed")["VpcSecurityGroups"]] == ["active"]

    with connect(server_of(world, "changed")) as session:
        before = session.value("SELECT pg_postmaster_start_time()")
    assert world.rds.reboot_db_instance(**copy)["DBInstance"]["DBInstanceStatus"] == "rebooting"
    world.wait("changed")
    with connect(server_of(world, "changed")) as session:
        assert session.value("SELECT pg_postmaster_start_time()") > before
        session.do("INSERT INTO public.t VALUES (77)")

    assert refused(world.rds.delete_db_instance, **copy, SkipFinalSnapshot=True) == (
        "InvalidParameterCombination"
    )
    world.rds.modify_db_instance(**copy, DeletionProtection=False)
    world.rds.delete_db_instance(**copy, FinalDBSnapshotIdentifier="last")
    wait_for(lambda: gone(world, "changed"), timeout_s=BOUND_S, what="changed is deleted")

    world.rds.restore_db_instance_from_db_snapshot(DBInstanceIdentifier="again", DBSnapshotIdentifier="last")
    assert 77 in world.rows(world.wait("again"))
    assert world.misses() == []


def test_a_cluster_holds_its_rows_and_answers_by_its_writer(world: RdsWorld) -> None:
    """A restore makes the storage alone; deleting needs its instance on the way out, and no protection."""
    copy = {"DBClusterIdentifier": "copy-cluster"}
    with simulator(world.home, world.server, clustered=True) as address:
        aurora = RdsWorld(home=world.home, server=world.server, address=address, rds=client(address))
        second = aurora.insert(11)

        def cluster() -> dict[str, Any]:
            return aurora.rds.describe_db_clusters(**copy)["DBClusters"][0]

        def archived() -> bool:
            source = aurora.rds.describe_db_clusters(DBClusterIdentifier=SOURCE)["DBClusters"][0]
            return source["LatestRestorableTime"] >= second

        wait_for(archived, timeout_s=BOUND_S, what=f"{second} is restorable")
        begun = aurora.rds.restore_db_cluster_to_point_in_time(
            **copy, SourceDBClusterIdentifier=SOURCE, RestoreToTime=second, DeletionProtection=True,
            VpcSecurityGroupIds=[GROUPS["isolation"]],
        )["DBCluster"]  # fmt: skip
        assert begun["Status"] == "creating"
        wait_for(lambda: cluster()["Status"] == "available", timeout_s=BOUND_S, what="the cluster is there")
        assert cluster()["DBClusterMembers"] == []
        shown = {
            "Endpoint": {"Address": cluster()["Endpoint"], "Port": cluster()["Port"]},
            "MasterUsername": MASTER,
        }
        with pytest.raises(DatabaseError):
            aurora.rows(shown)

        writer = {"DBInstanceIdentifier": "copy-cluster-1"}
        aurora.rds.create_db_instance(
            **writer, **copy, Engine="aurora-postgresql", DBInstanceClass="db.r6g.large"
        )
        aurora.wait("copy-cluster-1")
        assert 11 in aurora.rows(shown)
        aurora.rds.reboot_db_instance(**writer)
        aurora.wait("copy-cluster-1")
        assert 11 in aurora.rows(shown)

        said = run([*fence(aurora), "--cluster=copy-cluster"], timeout_s=BOUND_S, cwd=ROOT).stdout
        assert said.startswith("DB cluster copy-cluster is stopped; snapshot copy-cluster-stopped-")
        aurora.wait("copy-cluster-1", "stopped")
        with pytest.raises(DatabaseError):
            aurora.rows(shown)
        aurora.rds.start_db_cluster(**copy)
        aurora.wait("copy-cluster-1")
        assert 11 in aurora.rows(shown)

        delete = {**copy, "SkipFinalSnapshot": True}
        assert refused(aurora.rds.delete_db_cluster, **delete) == "InvalidDBClusterStateFault"
        aurora.rds.delete_db_instance(**writer, SkipFinalSnapshot=True)
        assert refused(aurora.rds.delete_db_cluster, **delete) == "InvalidParameterCombination"
        aurora.rds.modify_db_cluster(**copy, DeletionProtection=False)
        aurora.rds.delete_db_cluster(**delete)
        wait_for(lambda: refused_there(cluster), timeout_s=BOUND_S, what="the cluster is deleted")
        assert aurora.misses() == []


def test_an_instance_is_fenced_for_real(world: RdsWorld) -> None:
    """Nobody gets in, AWS takes no snapshot and restarts nothing; the snapshot before holds all; a start lifts it."""
    copy = {"DBInstanceIdentifier": "fenced"}
    shown = world.restore("fenced")
    with connect(server_of(world, "fenced")) as session:
        session.do("INSERT INTO public.t VALUES (88)")
    for _ in range(2):
        said = run([*fence(world), "--instance=fenced"], timeout_s=BOUND_S, cwd=ROOT).stdout
        assert said.startswith("DB instance fenced is stopped; snapshot fenced-stopped-")
    elsewhere = run([*fence(world), "--instance=nobody"], timeout_s=BOUND_S, cwd=ROOT, check=False)
    (taken,) = world.rds.describe_db_snapshots(**copy)["DBSnapshots"]

    assert (elsewhere.returncode != 0, "RB309" in elsewhere.stderr) == (True, True)
    assert world.shown("fenced")["AutomaticRestartTime"].isoformat() == taken["TagList"][-1]["Value"]
    with pytest.raises(DatabaseError):
        world.rows(shown)
    assert (
        refused(world.rds.create_db_snapshot, **copy, DBSnapshotIdentifier="late") == "InvalidDBInstanceState"
    )
    assert refused(world.rds.reboot_db_instance, **copy) == "InvalidDBInstanceState"
    assert refused(world.rds.stop_db_instance, **copy) == "InvalidDBInstanceState"
    world.rds.restore_db_instance_from_db_snapshot(
        DBInstanceIdentifier="held", DBSnapshotIdentifier=taken["DBSnapshotIdentifier"]
    )
    assert 88 in world.rows(world.wait("held"))
    world.rds.start_db_instance(**copy)
    assert 88 in world.rows(world.wait("fenced"))
    assert "AutomaticRestartTime" not in world.shown("fenced")
    assert world.misses() == []


def test_what_is_not_asked_as_described_is_refused(world: RdsWorld) -> None:
    """Unsigned, signed by another, unknown to the description, outside the window, not simulated."""
    nameless = world.rds.restore_db_instance_to_point_in_time
    to = {"SourceDBInstanceIdentifier": SOURCE, "TargetDBInstanceIdentifier": "never"}
    early = datetime.now(UTC) - timedelta(days=1)

    assert "IncompleteSignature" in httpx.post(world.address.url, content="Action=DescribeDBInstances").text
    assert refused(client(world.address, key="OTHER").describe_db_instances) == "InvalidClientTokenId"
    assert refused(client(world.address, secret="other").describe_db_instances) == "SignatureDoesNotMatch"
    assert refused(nameless, **to) == "InvalidParameterCombination"
    assert refused(nameless, **to, RestoreTime=early) == "InvalidRestoreFault"
    assert refused(world.rds.describe_db_engine_versions) == "InvalidAction"
    assert refused(world.rds.describe_db_instances, DBInstanceIdentifier="never") == "DBInstanceNotFound"
    assert world.misses() == []


def test_both_sides_are_held_to_the_description() -> None:
    """A parameter nobody described, a missing one, an unknown field and error of our own."""
    description = Description()
    version = f"Version={description.model.api_version}"
    asked = description.read(f"Action=RebootDBInstance&{version}&DBInstanceIdentifier=copy")

    assert asked.parameters == {"DBInstanceIdentifier": "copy"}
    for body in ("", "&DBInstanceIdentifier=copy&Nobody=1"):
        with pytest.raises(RefusedError, match="invented"):
            description.read(f"Action=RebootDBInstance&{version}{body}")
    assert "<DBInstanceStatus>rebooting" in description.write(
        asked.model, {"DBInstance": {"DBInstanceStatus": "rebooting"}}
    )
    for answer in ({"DBInstance": {"Nobody": 1}}, {"DBInstance": {"AllocatedStorage": "much"}}):
        with pytest.raises(MissError):
            description.write(asked.model, answer)
    with pytest.raises(MissError):
        description.write_error(asked.model, RefusedError("InvalidRestoreFault", "not of this call"))


def server_of(world: RdsWorld, name: str) -> Endpoint:
    """Return the superuser's endpoint on a copy, which no client of the service has."""
    return Endpoint(str(world.server.sockets), world.shown(name)["Endpoint"]["Port"], "postgres", DATABASE)


def refused_there(ask: Any) -> bool:
    """Whether what is asked for is there no more."""
    try:
        ask()
    except ClientError as error:
        return error.response["Error"]["Code"] == "DBClusterNotFoundFault"
    return False


def gone(world: RdsWorld, name: str) -> bool:
    try:
        return world.shown(name)["DBInstanceStatus"] != "deleting"
    except ClientError:
        return True
