"""The providers `rds` and `aurora` against a simulator: what they send, refuse, prove and undo."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from fixtures.command import run
from fixtures.drill.rds_simulator.moto_account import REGION
from fixtures.errors import ConfigError, ProviderError, RefusedError, UnsupportedError
from fixtures.evidence import redact
from fixtures.postgres.lsn import Lsn
from fixtures.postgres.server import Server, free_port
from fixtures.postgres.session import Endpoint, connect
from fixtures.production.capture import capture
from fixtures.progress import Tick
from fixtures.providers.base import Cluster, RestoredInstance, Site, Target, TargetKind
from fixtures.providers.rds import waiting
from fixtures.providers.rds.backend import Aurora, Managed, Rds
from fixtures.providers.rds.stopping import stop
from fixtures.providers.rds.values import ADMITTED_TAG, RUN_TAG, STOP_TAG
from fixtures.settings import AuroraProvider, RdsProvider
from tests.real.rds_simulator import SOURCE, SimulatedAws, simulated

PASSWORD = "master-of-the-simulated"
RUN = "20261128T040000Z-ab12"
KINDS = ("rds", "aurora")
LATEST = Target(kind=TargetKind.LATEST)
#: per kind: the call that restores to a time, to a snapshot, and the one that changes a copy
RESTORE = {"rds": "RestoreDBInstanceToPointInTime", "aurora": "RestoreDBClusterToPointInTime"}
FROM_SNAPSHOT = {"rds": "RestoreDBInstanceFromDBSnapshot", "aurora": "RestoreDBClusterFromSnapshot"}
MODIFY = {"rds": "ModifyDBInstance", "aurora": "ModifyDBCluster"}
REFUSED = {
    "InvalidRestoreFault": "RB301", "PointInTimeRestoreNotEnabled": "RB301", "StorageQuotaExceeded": "RB308",
    "InstanceQuotaExceeded": "RB308", "KMSKeyNotAccessibleFault": "RB309", "AccessDenied": "RB309",
    "InvalidDBInstanceState": "RB309",
}  # fmt: skip
#: per kind: the listing of snapshots, its items, and what one is of
SNAPSHOTS = {
    "rds": ("DescribeDBSnapshots", "DBSnapshots", "DbiResourceId"),
    "aurora": ("DescribeDBClusterSnapshots", "DBClusterSnapshots", "DbClusterResourceId"),
}
#: looks after which an instance that is being deleted is gone
LOOKS = 3
STOP = {"rds": "StopDBInstance", "aurora": "StopDBCluster"}
DESCRIBE = {"rds": "DescribeDBInstances", "aurora": "DescribeDBClusters"}
DELETE = {"rds": "DeleteDBInstance", "aurora": "DeleteDBCluster"}


@dataclass(frozen=True, kw_only=True)
class Lab:
    """One kind of provider in a simulated account."""

    kind: str
    aws: SimulatedAws
    site: Site

    def provider(self, **changes: object) -> Managed:
        """A provider as a new process makes it; `changes` replace settings."""
        common = {
            "region": REGION, "password_env": "RDS_MASTER", "tls": "disable",
            "isolation_security_groups": (self.aws.groups["isolation"],), **changes,
        }  # fmt: skip
        made: Managed
        if self.kind == "rds":
            made = Rds(RdsProvider.model_validate({"instance": SOURCE, **common}), self.site)
        else:
            made = Aurora(AuroraProvider.model_validate({"cluster": SOURCE, **common}), self.site)
        self.aws.watch(made)
        return made

    def start(self, target: Target = LATEST) -> tuple[Managed, RestoredInstance]:
        """Restore."""
        provider = self.provider()
        return provider, provider.start(provider.plan(target), quiet)


@pytest.fixture(scope="module")
def servers(public_dir: Path, binaries) -> Iterator[tuple[Server, Server]]:
    """Production, and a real copy of it, made while it was stopped."""
    home = public_dir / "rds"
    home.mkdir()
    binaries.own(home)
    production = Server(binaries, home / "data", free_port(), home, "postgres", home / "logs")
    production.initdb()
    with (production.data / "postgresql.conf").open("a") as conf:
        conf.write("listen_addresses = '127.0.0.1'\ntrack_commit_timestamp = on\narchive_mode = on\n")
        conf.write("archive_command = '/bin/true'\n")
    job = production.start()
    production.wait_ready(job)
    with connect(production.endpoint) as session:
        session.do("CREATE TABLE public.t (n int)")
        session.do("INSERT INTO public.t VALUES (1)")
        session.do("ALTER ROLE postgres PASSWORD 'master-of-the-simulated'")
    production.stop()
    run(["cp", "-a", production.data, home / "copy"], timeout_s=60)
    copy = Server(binaries, home / "copy", free_port(), home, "postgres", home / "logs-copy")
    jobs = [each.start({"fsync": "on"}) for each in (production, copy)]
    for server, each in zip((production, copy), jobs, strict=True):
        server.wait_ready(each)
    yield production, copy
    for server in (production, copy):
        server.stop(mode="immediate")


@pytest.fixture(params=KINDS)
def lab(request, servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A fresh account per test."""
    monkeypatch.setenv("RDS_MASTER", PASSWORD)
    production, copy = servers
    with connect(production.endpoint) as session:
        identifier = session.value("SELECT system_identifier::text FROM pg_control_system()")
    site = Site(
        run_id=RUN, directory=tmp_path, host="", port=0, sockets=tmp_path, logs=tmp_path / "logs", binaries=None,
        cluster=Cluster(system_identifier=identifier), timeout_s=20, production=lambda: production.endpoint,
    )  # fmt: skip
    with simulated(production, copy) as aws:
        yield Lab(kind=request.param, aws=aws, site=site)


def quiet(_: Tick) -> None:
    """Take progress and say nothing."""


def at(when: datetime, *, exclusive: bool = False) -> Target:
    return Target(kind=TargetKind.TIME, value=when.isoformat(), at=when, exclusive=exclusive)


def whole(when: datetime) -> datetime:
    """The whole second a time lies in."""
    return when.replace(microsecond=0)


def codes(provider: Managed, target: Target) -> list[str]:
    return [finding.code for finding in provider.check(target)]


# -- asking ------------------------------------------------------------------------------------------


def test_a_good_target_has_no_finding_and_nothing_is_changed_by_asking(lab: Lab) -> None:
    """Window, check and plan send nothing but questions."""
    provider = lab.provider()
    snapshot = Target(kind=TargetKind.SNAPSHOT, value="nightly")

    assert provider.window().latest is not None
    for target in (LATEST, at(whole(datetime.now(UTC))), snapshot):
        assert provider.check(target, lock_lsn=Lsn(1)) == []
        provider.plan(target)

    assert lab.aws.changing() == []


def test_the_plan_shows_every_call_and_that_aws_never_saw_it(lab: Lab) -> None:
    """What is sent stands in the plan, without a secret; two plans of a run name the same copy."""
    provider = lab.provider()
    plan = provider.plan(LATEST)
    text = "\n".join(plan.commands)

    assert "never executed on AWS" in plan.commands[0]
    assert lab.aws.groups["isolation"] in text
    assert lab.aws.groups["production"] not in text
    assert PASSWORD not in text
    assert plan.instance == lab.provider().plan(at(datetime.now(UTC))).instance
    assert plan.instance.name == f"{SOURCE}-20261128t040000z-ab12"
    assert len(plan.commands) == (2 if lab.kind == "rds" else 3)


def test_a_target_aws_has_no_word_for_is_refused(lab: Lab) -> None:
    """Positions, transactions and restore points are not to be had."""
    provider = lab.provider()

    for kind in (TargetKind.LSN, TargetKind.XID, TargetKind.NAME):
        assert codes(provider, Target(kind=kind, value="0/1")) == ["RB108"]
        with pytest.raises(UnsupportedError):
            provider.plan(Target(kind=kind, value="0/1"))


def test_a_part_of_a_second_is_refused_with_the_second_before_it(lab: Lab) -> None:
    """AWS takes whole seconds: the rows between would be neither served nor counted as discarded."""
    provider = lab.provider()
    second = whole(datetime.now(UTC)) - timedelta(seconds=5)
    before = second - timedelta(seconds=1)
    half = second + timedelta(microseconds=500_000)

    for target, nearest in (
        (at(half), second), (at(half, exclusive=True), second), (at(second, exclusive=True), before),
    ):  # fmt: skip
        (found,) = provider.check(target)

        assert found.code == "RB108"
        assert found.nearest == at(nearest)
    assert provider.check(at(second)) == []


def test_times_outside_the_window_are_refused(lab: Lab) -> None:
    """Both ends, with the nearest time; waiting helps at the newer one."""
    provider = lab.provider()
    if lab.kind == "rds":
        begins = datetime.now(UTC) - timedelta(days=7)
        described = boto3.client("rds", region_name=REGION).describe_db_instances(DBInstanceIdentifier=SOURCE)
        resource = described["DBInstances"][0]["DbiResourceId"]
        lab.aws.answers["DescribeDBInstanceAutomatedBackups"] = lambda answer: answer.update(
            DBInstanceAutomatedBackups=[
                {"DbiResourceId": resource, "RestoreWindow": {"EarliestTime": begins}}
            ]
        )
    (early,) = provider.check(at(datetime.now(UTC) - timedelta(days=30)))
    (late,) = provider.check(at(datetime.now(UTC) + timedelta(hours=1)))

    assert (early.code, late.code, late.waiting_helps) == ("RB301", "RB303", True)
    assert early.nearest is not None
    assert late.nearest is not None


def test_what_aws_would_refuse_later_is_refused_first(lab: Lab) -> None:
    """Backups that are off, a foreign engine, a replica, one of production's groups, a full account."""
    key = "DBInstances" if lab.kind == "rds" else "DBClusters"
    ask = f"Describe{key}"
    follows = "ReadReplicaSourceDBInstanceIdentifier" if lab.kind == "rds" else "ReplicationSourceIdentifier"

    def found(**changes: object) -> list[str]:
        def answer(parsed: dict) -> None:
            for each in parsed.get(key) or ():
                if each[f"{key[:-1]}Identifier"] == SOURCE:
                    each.update(changes)

        lab.aws.answers[ask] = answer
        try:
            return codes(lab.provider(), LATEST)
        finally:
            del lab.aws.answers[ask]

    assert found(BackupRetentionPeriod=0) == ["RB301"]
    assert found(Engine="mysql") == ["RB108"]
    assert found(**{follows: "primary"}) == ["RB108"]
    assert found(**{"DBInstanceStatus" if lab.kind == "rds" else "Status": "failed"}) == ["RB309"]
    shared = lab.provider(isolation_security_groups=(lab.aws.groups["production"],))
    assert codes(shared, LATEST) == ["RB311"]
    lab.aws.quotas["DBInstances"] = (40, 40)
    assert codes(lab.provider(), LATEST) == ["RB308"]
    assert lab.aws.changing() == []


def test_a_source_that_is_not_there_is_named(lab: Lab) -> None:
    """A wrong identifier is no empty window."""
    key = "instance" if lab.kind == "rds" else "cluster"
    provider = lab.provider(**{key: "nobody"})

    assert codes(provider, LATEST) == ["RB309"]
    with pytest.raises(ProviderError, match="nobody"):
        provider.window()


def test_snapshots_are_looked_at(lab: Lab) -> None:
    """One that is not there, and one of another database."""
    assert codes(lab.provider(), Target(kind=TargetKind.SNAPSHOT, value="no-such")) == ["RB301"]
    ask, key = (
        ("DescribeDBSnapshots", "DBSnapshots")
        if lab.kind == "rds"
        else ("DescribeDBClusterSnapshots", "DBClusterSnapshots")
    )
    resource = "DbiResourceId" if lab.kind == "rds" else "DbClusterResourceId"
    lab.aws.answers[ask] = lambda parsed: [each.update({resource: "another"}) for each in parsed[key]]

    assert codes(lab.provider(), Target(kind=TargetKind.SNAPSHOT, value="nightly")) == ["RB305"]


def test_a_missing_password_is_found_before_anything_is_made(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable is named."""
    monkeypatch.delenv("RDS_MASTER")

    (finding,) = lab.provider().check(LATEST)

    assert (finding.code, finding.where) == ("RB106", "RDS_MASTER")


# -- restoring ---------------------------------------------------------------------------------------


def test_everything_production_has_is_sent_and_its_groups_are_not(lab: Lab) -> None:
    """AWS would take the account's defaults: what production has is sent in so many words."""
    _, restored = lab.start()
    sent = lab.aws.last(RESTORE[lab.kind])

    assert sent["VpcSecurityGroupIds"] == [lab.aws.groups["isolation"]]
    assert sent["DeletionProtection"] is True
    assert sent["BackupRetentionPeriod"] == 7
    assert sent["Port"] > 0
    assert sent["UseLatestRestorableTime"] is True
    assert {"Key": "team", "Value": "stamps"} in sent["Tags"]
    assert {"Key": RUN_TAG, "Value": RUN} in sent["Tags"]
    if lab.kind == "rds":
        assert sent["SourceDBInstanceIdentifier"] == SOURCE
        assert sent["TargetDBInstanceIdentifier"] == restored.ref.name
        assert sent["MultiAZ"] is True
        assert sent["PubliclyAccessible"] is False
        assert sent["DBParameterGroupName"] == "stampcard18"
        assert sent["OptionGroupName"]
        assert (sent["DBInstanceClass"], sent["StorageType"]) == ("db.r6g.large", "gp3")
        assert sent["EnableCloudwatchLogsExports"] == ["postgresql"]
        assert "Iops" not in sent
    else:
        assert (sent["SourceDBClusterIdentifier"], sent["RestoreType"]) == (SOURCE, "full-copy")
        assert sent["DBClusterParameterGroupName"] == "stampcard-cluster"
        writer = lab.aws.last("CreateDBInstance")
        assert writer["DBClusterIdentifier"] == restored.ref.name
        assert writer["DBInstanceIdentifier"] == f"{restored.ref.name}-1"
        assert writer["DBInstanceClass"] == "db.r6g.xlarge"
        assert writer["PubliclyAccessible"] is False
        assert {"Key": RUN_TAG, "Value": RUN} in writer["Tags"]


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_time_is_sent_in_whole_seconds_and_never_later(lab: Lab, exclusive: bool) -> None:
    """Inclusive is rounded down, exclusive ends before."""
    wanted = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=2)

    _, restored = lab.start(at(wanted, exclusive=exclusive))

    sent = lab.aws.last(RESTORE[lab.kind])
    moment = sent["RestoreTime" if lab.kind == "rds" else "RestoreToTime"]
    assert moment == wanted - timedelta(seconds=1 if exclusive else 0)
    assert "UseLatestRestorableTime" not in sent
    assert "whole seconds" in restored.stop_reason


def test_a_snapshot_is_restored_into_a_new_instance(lab: Lab) -> None:
    """The same groups are sent as to a point in time."""
    lab.start(Target(kind=TargetKind.SNAPSHOT, value="nightly"))

    sent = lab.aws.last(FROM_SNAPSHOT[lab.kind])
    assert sent["VpcSecurityGroupIds"] == [lab.aws.groups["isolation"]]
    assert sent["DeletionProtection"] is True
    assert sent.get("DBSnapshotIdentifier", sent.get("SnapshotIdentifier")) == "nightly"
    if lab.kind == "aurora":
        assert sent["EngineVersion"] == "12.7"


def test_a_new_process_joins_what_a_dead_one_had_made(lab: Lab) -> None:
    """By name and tag; nothing is made twice."""
    _, restored = lab.start()
    made = [name for name in lab.aws.changing() if name.startswith(("Restore", "Create"))]

    provider, again = lab.start()

    assert again.ref == restored.ref
    assert [name for name in lab.aws.changing() if name.startswith(("Restore", "Create"))] == made
    assert provider.attach(restored.ref).ref == restored.ref
    assert provider.promote(restored.ref).paused is False
    assert not [
        finding for finding in provider.isolation(restored.ref) if finding.blocking and not finding.holds
    ]
    with connect(restored.ref.endpoint) as session:
        assert session.value("SELECT count(*) FROM public.t") == 1
    with pytest.raises(UnsupportedError):
        provider.advance(restored.ref, provider.plan(LATEST), quiet)


def test_somebody_elses_instance_of_that_name_is_left_alone(lab: Lab) -> None:
    """Without the run's tag it is refused, not attached, not deleted."""
    provider = lab.provider()
    plan = provider.plan(LATEST)
    client = boto3.client("rds", region_name=REGION)
    if lab.kind == "rds":
        client.create_db_instance(
            DBInstanceIdentifier=plan.instance.name, Engine="postgres", DBInstanceClass="db.t3.micro",
            AllocatedStorage=10, MasterUsername="postgres", MasterUserPassword="somebody's",
        )  # fmt: skip
    else:
        client.create_db_cluster(
            DBClusterIdentifier=plan.instance.name, Engine="aurora-postgresql", MasterUsername="postgres",
            MasterUserPassword="somebody's",
        )  # fmt: skip

    assert codes(provider, LATEST) == ["RB312"]
    for touch in (
        lambda: provider.start(plan, quiet),
        lambda: provider.attach(plan.instance),
        lambda: provider.isolate(plan.instance),
        lambda: provider.discard(plan.instance),
    ):
        with pytest.raises(ProviderError) as error:
            touch()
        assert error.value.code == "RB312"
    assert lab.aws.changing() == []


def test_latest_waits_until_everything_committed_is_archived(lab: Lab) -> None:
    """A restore begun at once would lose the minutes AWS has not archived yet."""
    provider = lab.provider()
    plan = provider.plan(LATEST)
    lab.aws.lag_s = 3600.0
    ticks: list[Tick] = []

    def catch_up(tick: Tick) -> None:
        ticks.append(tick)
        if tick.phase == "archive" and len(ticks) > 2:
            lab.aws.lag_s = 0.0
            assert lab.aws.changing() == []

    provider.start(plan, catch_up)

    assert [tick.phase for tick in ticks[:3]] == ["archive"] * 3
    assert RESTORE[lab.kind] in lab.aws.changing()


@pytest.mark.parametrize("archived", [True, False])
def test_latest_of_a_production_that_is_down_loses_no_row(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, archived: bool
) -> None:
    """It cannot say what it committed last: what AWS archived has to reach behind now, or is named."""
    nowhere = Endpoint("127.0.0.1", 1, "x")
    down = replace(lab, site=replace(lab.site, production=lambda: nowhere))
    # the simulated answer is the present one, less this: behind what was asked, or never
    lab.aws.lag_s = -5.0 if archived else 3600.0
    monkeypatch.setattr(waiting, "LAG_S", 0.0)
    if archived:
        assert down.start()[1].ref.name
        return

    with pytest.raises(ProviderError, match="RB303") as error:
        down.start()

    assert "production may have committed until" in error.value.fact
    assert "--snapshot=ID" in error.value.hints[1]
    assert lab.aws.changing() == []


def test_latest_lies_behind_the_lock(lab: Lab) -> None:
    """AWS knows no positions, so what it restores last holds the lock's own commits, and says how far it replayed."""
    lab.aws.copy.stop(mode="immediate")
    lab.aws.copy.wait_ready(lab.aws.copy.start({"fsync": "on"}))

    _, restored = lab.start(Target(kind=TargetKind.LATEST, not_beyond=Lsn(1)))

    assert restored.stopped_at is not None
    assert restored.stopped_at > Lsn(1)


def test_a_copy_that_will_never_be_available_ends_the_wait(lab: Lab) -> None:
    """The SDK's waiter would go on to its bound for some of them."""
    key = "DBInstances" if lab.kind == "rds" else "DBClusters"
    provider = lab.provider()
    plan = provider.plan(LATEST)
    for status in ("failed", "incompatible-restore", "inaccessible-encryption-credentials"):

        def answer(parsed: dict, status: str = status) -> None:
            for each in parsed.get(key) or ():
                if each[f"{key[:-1]}Identifier"] == plan.instance.name:
                    each["DBInstanceStatus" if lab.kind == "rds" else "Status"] = status

        lab.aws.answers[f"Describe{key}"] = answer

        with pytest.raises(ProviderError) as error:
            provider.start(plan, quiet)

        assert error.value.code == "RB310"
        assert status in error.value.fact


def test_a_restore_that_overruns_is_joined_later(lab: Lab) -> None:
    """The bound is the run's own; AWS works on and the next process finds it."""
    key = "DBInstances" if lab.kind == "rds" else "DBClusters"
    provider = lab.provider()
    plan = provider.plan(LATEST)

    def answer(parsed: dict) -> None:
        for each in parsed.get(key) or ():
            if each[f"{key[:-1]}Identifier"] == plan.instance.name:
                each["DBInstanceStatus" if lab.kind == "rds" else "Status"] = "creating"

    lab.aws.answers[f"Describe{key}"] = answer
    provider._waiting = type(provider._waiting)(service=provider._service, timeout_s=0.2, look_s=0.05)
    with pytest.raises(ProviderError) as error:
        provider.start(plan, quiet)
    assert error.value.code == "RB315"
    with pytest.raises(ProviderError) as error:
        provider.attach(plan.instance)
    assert error.value.code == "RB312"

    del lab.aws.answers[f"Describe{key}"]
    assert lab.start()[1].ref == plan.instance


def test_what_aws_refuses_is_an_error_of_the_catalogue(lab: Lab) -> None:
    """With AWS's own word, and what a person can do."""
    provider = lab.provider()
    plan = provider.plan(LATEST)
    said = ""

    def refuse(**_: object) -> None:
        raise ClientError({"Error": {"Code": said, "Message": "simulated"}}, RESTORE[lab.kind])

    provider._service.cloud.client.meta.events.register(f"before-call.rds.{RESTORE[lab.kind]}", refuse)
    for said, code in REFUSED.items():
        with pytest.raises(ProviderError) as error:
            provider.start(plan, quiet)

        assert error.value.code == code
        assert error.value.where == said


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("ExpiredToken", "log in again"),
        ("InvalidClientTokenId", "AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", "secret key"),
        ("RequestExpired", "clock"),
        ("AccessDenied", "the action that is named"),
        ("", "the network"),
    ],
    ids=lambda word: word or "outage",
)
def test_who_may_not_ask_is_told_before_anything_is_made(lab: Lab, said: str, hint: str) -> None:
    """Wrong, expired or powerless credentials, a wrong clock, no answer: with what to do, and nothing is changed."""
    provider = lab.provider()

    def refuse(**_: object) -> None:
        if not said:
            raise EndpointConnectionError(endpoint_url="https://nobody.example")
        raise ClientError({"Error": {"Code": said, "Message": "simulated"}}, "Describe")

    provider._service.cloud.client.meta.events.register("before-call.rds", refuse)

    (finding,) = provider.check(LATEST)

    assert finding.code == "RB309"
    assert said in finding.where
    assert hint in finding.hints[0]
    assert lab.aws.changing() == []


@pytest.mark.parametrize(
    ("said", "hint"), [("ExpiredToken", "log in again"), ("AccessDenied", "the action that is named")]
)
def test_credentials_that_fail_on_the_way_leave_one_copy_to_go_on_with(
    lab: Lab, said: str, hint: str
) -> None:
    """Refused while AWS makes the copy, and when it is deleted; with better ones the same copy is joined, and ended."""
    provider = lab.provider()
    plan = provider.plan(LATEST)
    describes = f"Describe{'DBInstances' if lab.kind == 'rds' else 'DBClusters'}"
    asked = RESTORE[lab.kind]

    def refuse(**_: object) -> None:
        if asked in lab.aws.changing():
            raise ClientError({"Error": {"Code": said, "Message": "simulated"}}, describes)

    def refused(act: Callable[[], object]) -> None:
        with pytest.raises(ProviderError) as error:
            act()
        assert (error.value.code, error.value.where) == ("RB309", said)
        assert hint in error.value.hints[0]

    provider._service.cloud.client.meta.events.register(f"before-call.rds.{describes}", refuse)
    refused(lambda: provider.start(plan, quiet))

    again = lab.provider()
    restored = again.start(plan, quiet)

    assert restored.ref.name == plan.instance.name
    assert lab.aws.changing().count(asked) == 1
    again._service.cloud.client.meta.events.register(f"before-call.rds.{DELETE[lab.kind]}", refuse)
    refused(lambda: again.discard(restored.ref))
    lab.provider().discard(restored.ref)
    assert lab.provider()._service.copy(restored.ref.name) is None


def test_a_copy_in_productions_groups_is_not_isolated(lab: Lab) -> None:
    """What the service answers counts, not what was sent."""
    provider, restored = lab.start()
    key = "DBInstances" if lab.kind == "rds" else "DBClusters"

    def answer(parsed: dict) -> None:
        for each in parsed.get(key) or ():
            each["VpcSecurityGroups"] = [
                {"VpcSecurityGroupId": lab.aws.groups["production"], "Status": "active"}
            ]

    lab.aws.answers[f"Describe{key}"] = answer

    broken = {finding.subject for finding in provider.isolation(restored.ref) if not finding.holds}

    assert "security groups" in broken


def test_a_copy_that_holds_more_than_was_asked_for_is_refused(lab: Lab) -> None:
    """Its own commits since it was asked for are its own; one between the target and then is production's."""
    provider = lab.provider()
    early = at(datetime.now(UTC) - timedelta(days=1))

    with pytest.raises(ProviderError) as error:
        provider.start(provider.plan(early), quiet)

    assert error.value.code == "RB310"
    assert "after the target" in error.value.fact


def test_production_itself_is_never_taken_for_the_copy(lab: Lab) -> None:
    """An address that leads to production is found by asking it."""
    lab.aws.copy, kept = lab.aws.production, lab.aws.copy
    try:
        with pytest.raises(ProviderError) as error:
            lab.start()
    finally:
        lab.aws.copy = kept

    assert error.value.code == "RB312"


# -- serving -----------------------------------------------------------------------------------------


def test_a_copy_becomes_fit_to_be_production_and_back(lab: Lab) -> None:
    """Production's groups, protection, backups, a proven restart; then the isolation's groups again."""
    provider, restored = lab.start()
    provider = lab.provider(hydrate=("postgres.public.t",))

    def admit():
        return provider.admit(
            restored.ref, capture(lab.aws.production.endpoint), archive=None, base_backups=None, supervisor=None,
            allowed={},
        )  # fmt: skip

    service = admit()

    assert (service.host, service.port) == ("127.0.0.1", lab.aws.copy.port)
    assert service.durable
    assert service.differences == ()
    assert service.unprotected_since is None
    assert "restorable up to" in service.archived_segment
    changed = lab.aws.last(MODIFY[lab.kind])
    assert changed["VpcSecurityGroupIds"] == [lab.aws.groups["production"]]
    assert changed["ApplyImmediately"] is True
    assert changed["BackupRetentionPeriod"] == 7
    assert changed["DeletionProtection"] is True
    restarts = lab.aws.changing().count("RebootDBInstance")
    assert restarts == 1

    # the audit of step 11 asks again: a served database is not restarted for that
    assert admit().durable
    assert lab.aws.changing().count("RebootDBInstance") == restarts

    lab.provider().isolate(restored.ref)
    lab.provider().isolate(restored.ref)

    changed = lab.aws.last(MODIFY[lab.kind])
    assert changed["VpcSecurityGroupIds"] == [lab.aws.groups["isolation"]]
    assert not [each for each in provider.isolation(restored.ref) if each.blocking and not each.holds]
    assert admit().unprotected_since is None


def test_a_copy_without_backups_of_its_own_is_unprotected(lab: Lab) -> None:
    """Until its first restorable time is there, it says so."""
    provider, restored = lab.start()
    key = "DBInstances" if lab.kind == "rds" else "DBClusters"
    lab.aws.answers[f"Describe{key}"] = lambda parsed: [
        each.pop("LatestRestorableTime", None) for each in parsed.get(key) or ()
    ]

    service = provider.admit(
        restored.ref, capture(lab.aws.production.endpoint), archive=None, base_backups=None, supervisor=None,
        allowed={},
    )  # fmt: skip

    assert service.unprotected_since is not None
    assert service.archived_segment == service.base_backup == ""


def test_a_table_to_hydrate_has_three_names(lab: Lab) -> None:
    """A wrong one is refused before anything is changed."""
    _, restored = lab.start()
    provider = lab.provider(hydrate=("t",))
    before = len(lab.aws.changing())

    with pytest.raises(ConfigError):
        provider.admit(
            restored.ref, capture(lab.aws.production.endpoint), archive=None, base_backups=None, supervisor=None,
            allowed={},
        )  # fmt: skip

    assert len(lab.aws.changing()) == before


def test_two_restores_at_once_do_not_meet(lab: Lab) -> None:
    """Two runs make a copy each, under a name and a tag of its own; to discard one leaves the other alone."""
    other = replace(lab, site=replace(lab.site, run_id="20261128T050000Z-cd34"))
    (first, one), (second, two) = lab.start(), other.start()
    assert one.ref.name != two.ref.name
    with pytest.raises(ProviderError) as error:
        second.discard(replace(one.ref, run_id=two.ref.run_id))
    assert error.value.code == "RB312"

    first.discard(one.ref)

    assert first.endpoint(one.ref.name) is None
    assert second.attach(two.ref).ref == two.ref


def test_discard_deletes_its_own_and_nothing_else(lab: Lab) -> None:
    """Protection goes first; a copy users never saw leaves no snapshot; twice is quiet."""
    provider, restored = lab.start()

    provider.discard(restored.ref)
    provider.discard(restored.ref)

    deleted = lab.aws.last(DELETE[lab.kind])
    assert deleted["SkipFinalSnapshot"] is True
    assert SOURCE not in {value for _, sent in lab.aws.sent if "Delete" in _ for value in sent.values()}
    assert provider.endpoint(restored.ref.name) is None
    assert lab.provider().window().latest is not None


def test_a_discard_that_died_halfway_is_finished(lab: Lab) -> None:
    """A cluster whose instance is being deleted is still there; an instance that is being deleted is gone soon."""
    _, restored = lab.start()

    looks = iter(range(LOOKS))

    def deleting(answer: dict) -> None:
        for each in answer["DBInstances"]:
            if each["DBInstanceIdentifier"].startswith(restored.ref.name):
                each["DBInstanceStatus"] = "deleting"
                if next(looks, None) is None:
                    answer["DBInstances"] = []

    lab.aws.answers["DescribeDBInstances"] = deleting
    before = len(lab.aws.changing())

    with pytest.raises(ProviderError) if lab.kind == "aurora" else nullcontext():
        # moto refuses to delete a cluster with an instance, which AWS allows while that is being deleted
        lab.provider().discard(restored.ref)

    assert lab.kind == "aurora" or next(looks, None) is None  # it waited until the instance was gone
    sent = [name for name in lab.aws.changing()[before:] if name.startswith("Delete")]
    assert set(sent) == (set() if lab.kind == "rds" else {"DeleteDBCluster"})


def test_a_copy_that_is_not_gone_is_not_discarded(lab: Lab) -> None:
    """Its rows are there until then: a stage drill must not say that they are not."""
    provider, restored = lab.start()
    key = "DBInstances" if lab.kind == "rds" else "DBClusters"

    def deleting(answer: dict) -> None:
        for each in answer[key]:
            if each[f"{key[:-1]}Identifier"] == restored.ref.name:
                each["DBInstanceStatus" if lab.kind == "rds" else "Status"] = "deleting"

    lab.aws.answers[f"Describe{key}"] = deleting
    provider._waiting = type(provider._waiting)(service=provider._service, timeout_s=0.2, look_s=0.05)

    with pytest.raises(ProviderError) as error:
        provider.discard(restored.ref)

    assert error.value.code == "RB315"
    assert "not deleted" in error.value.fact


def test_a_served_copy_leaves_a_last_snapshot(lab: Lab) -> None:
    """Users may have written to it."""
    provider, restored = lab.start()
    copy = provider._service.copy(restored.ref.name)
    assert copy is not None
    provider._service.mark(copy, ADMITTED_TAG)

    provider.discard(restored.ref)

    deleted = lab.aws.last(DELETE[lab.kind])
    assert deleted["SkipFinalSnapshot"] is False
    assert deleted["FinalDBSnapshotIdentifier"]
    assert deleted["DeleteAutomatedBackups"] is False


def test_the_safety_copy_is_a_snapshot_of_production(lab: Lab) -> None:
    """Taken once, found again by its name; other kinds are refused."""
    provider = lab.provider()

    name = provider.safety_copy("snapshot")

    assert provider.safety_copy("snapshot") == name
    assert provider.safety_copy_stands("snapshot", name) == ""
    with pytest.raises(UnsupportedError):
        provider.safety_copy("branch")


def test_a_safety_copy_is_asked_for_again(lab: Lab) -> None:
    """One that failed, is of something else or is gone does not stand; a refusal of AWS is no pass."""
    provider = lab.provider()
    name = provider.safety_copy("snapshot")
    listing, items, resource = SNAPSHOTS[lab.kind]

    def answered(**fields: str) -> str:
        lab.aws.answers[listing] = lambda parsed: parsed[items][0].update(fields)
        return provider.safety_copy_stands("snapshot", name)

    assert "is failed, not available" in answered(Status="failed")
    assert "not of production" in answered(Status="available", **{resource: "db-somebodys"})
    del lab.aws.answers[listing]
    rds = boto3.client("rds", region_name=REGION)
    if lab.kind == "rds":
        rds.delete_db_snapshot(DBSnapshotIdentifier=name)
    else:
        rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=name)
    assert "it was deleted" in provider.safety_copy_stands("snapshot", name)

    def refuse(**_: object) -> None:
        raise ClientError({"Error": {"Code": "ExpiredToken", "Message": "expired"}}, listing)

    events = provider._service.cloud.client.meta.events
    asking = {"rds": "DescribeDBInstances", "aurora": "DescribeDBClusters"}[lab.kind]
    events.register(f"before-call.rds.{asking}", refuse)
    with pytest.raises(ProviderError, match="expired"):  # which one is production cannot be told
        provider.safety_copy_stands("snapshot", name)
    events.unregister(f"before-call.rds.{asking}", refuse)
    events.register(f"before-call.rds.{listing}", refuse)
    with pytest.raises(ProviderError, match="expired"):
        provider.safety_copy_stands("snapshot", name)


def test_a_production_is_fenced_by_stopping_it_and_its_snapshot_is_the_safety_copy(lab: Lab) -> None:
    """Once or twice it is one stop; what is tied to another stop, or to none, is no safety copy of this one."""
    provider = lab.provider()
    service = provider._service
    restarts = stopped_since(lab, datetime.now(UTC))
    notes: list[str] = []

    for _ in range(2):
        said = stop(service, lambda tick: notes.append(tick.note), timeout_s=20)
        assert f"{SOURCE} is stopped; snapshot {SOURCE}-stopped-" in said

    asked = [name for name in lab.aws.changing() if not name.startswith("Add")]
    assert asked == ([] if lab.kind == "rds" else ["CreateDBClusterSnapshot"])
    assert [name for name, _ in lab.aws.sent].count(STOP[lab.kind]) == 1
    assert notes[0] == f"{SOURCE} is available"
    name = provider.safety_copy("snapshot")
    assert name in said
    assert provider.safety_copy_stands("snapshot", name) == ""
    assert lab.aws.changing()[-1] == "AddTagsToResource"
    assert lab.aws.last("AddTagsToResource")["Tags"] == [{"Key": STOP_TAG, "Value": restarts.isoformat()}]

    for since in (
        datetime.now(UTC) + timedelta(hours=2),
        None,
    ):  # started and stopped again; or not told when
        stopped_since(lab, since)
        with pytest.raises(ProviderError, match=r"RB404.*no snapshot was taken at this stop") as error:
            provider.safety_copy("snapshot")
        assert "start-db-" in error.value.hints[0]
        assert "NO SNAPSHOT was taken" in stop(service, quiet, timeout_s=20)


def test_a_fence_that_aws_does_not_make_is_none(lab: Lab) -> None:
    """A status that AWS does not stop from, one that stays, and a refusal: RB405 with what to do."""
    service = lab.provider()._service
    field = {"rds": "DBInstanceStatus", "aurora": "Status"}[lab.kind]
    for status in ("failed", "storage-full", "stopping"):
        answered(lab, **{field: status})
        with pytest.raises(RefusedError, match=rf"RB405.*{SOURCE} is {status}, not stopped") as error:
            stop(service, quiet, timeout_s=0)
        assert "aws rds describe-db-" in error.value.hints[0]
    assert lab.aws.changing() == []
    del lab.aws.answers[DESCRIBE[lab.kind]]

    def refuse(**_: object) -> None:
        raise ClientError(
            {"Error": {"Code": "InvalidDBInstanceState", "Message": "it has a replica"}}, STOP[lab.kind]
        )

    service.cloud.client.meta.events.register(f"before-call.rds.{STOP[lab.kind]}", refuse)
    with pytest.raises(RefusedError, match=r"RB405.*it has a replica"):
        stop(service, quiet, timeout_s=20)


def answered(lab: Lab, **fields: object) -> None:
    """Have AWS say this about production."""
    items = DESCRIBE[lab.kind].removeprefix("Describe")

    def put(parsed: dict) -> None:
        for each in parsed.get(items) or ():
            if each[f"{items[:-1]}Identifier"] == SOURCE:
                each.update(fields)

    lab.aws.answers[DESCRIBE[lab.kind]] = put


def stopped_since(lab: Lab, since: datetime | None) -> datetime:
    """Have AWS say when it starts production by itself, which moto does not."""
    restarts = whole(since or datetime.now(UTC)) + timedelta(days=7)
    answered(lab, **({"AutomaticRestartTime": restarts} if since else {}))
    return restarts


def test_the_password_is_nowhere_but_in_the_connection(lab: Lab) -> None:
    """It is known to the redactor, and no call carries it."""
    provider, restored = lab.start()

    assert PASSWORD not in str(lab.aws.sent)
    assert PASSWORD not in repr(restored)
    assert PASSWORD not in redact(f"it is {PASSWORD}")
    found = provider.endpoint(restored.ref.name)
    assert found is not None
    assert PASSWORD not in found.conninfo()
    assert found.password is not None
