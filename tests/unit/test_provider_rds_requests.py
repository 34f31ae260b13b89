"""What `rds` and `aurora` send, against the service's own model: every parameter, every error, every name."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from botocore.stub import Stubber
from botocore.validate import ParamValidator

from fixtures.errors import CATALOGUE, ProviderError, RunbookError
from fixtures.providers.base import Target, TargetKind
from fixtures.providers.rds.cloud import ABSENT, BUSY, CODES, HINTS, TAKEN, Cloud
from fixtures.providers.rds.clusters import Clusters
from fixtures.providers.rds.fence import main as fence
from fixtures.providers.rds.instances import Instances
from fixtures.providers.rds.service import restore_time
from fixtures.providers.rds.values import LONGEST, Request, Source, identifier
from fixtures.settings import AuroraProvider, RdsProvider

AT = datetime(2026, 11, 28, 4, 0, 0, 250_000, tzinfo=UTC)
TIME = Target(kind=TargetKind.TIME, value=AT.isoformat(), at=AT)
LATEST = Target(kind=TargetKind.LATEST)
#: a production with everything switched on, as the service describes it
INSTANCE = {
    "DBInstanceIdentifier": "stampcard", "DBInstanceClass": "db.r6g.large", "Engine": "postgres",
    "DBInstanceStatus": "available", "MasterUsername": "postgres", "Endpoint": {"Address": "x", "Port": 5433},
    "AllocatedStorage": 500, "PreferredBackupWindow": "01:00-01:30", "BackupRetentionPeriod": 14,
    "VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-1", "Status": "active"}],
    "DBParameterGroups": [{"DBParameterGroupName": "tuned", "ParameterApplyStatus": "in-sync"}],
    "DBSubnetGroup": {"DBSubnetGroupName": "private"}, "PreferredMaintenanceWindow": "sun:03:00-sun:03:30",
    "MultiAZ": True, "EngineVersion": "17.4", "AutoMinorVersionUpgrade": False,
    "OptionGroupMemberships": [{"OptionGroupName": "options", "Status": "in-sync"}], "Iops": 12000,
    "StorageThroughput": 500, "StorageType": "gp3", "PubliclyAccessible": True, "StorageEncrypted": True,
    "KmsKeyId": "key", "DbiResourceId": "db-1", "CACertificateIdentifier": "rds-ca-rsa2048-g1",
    "CopyTagsToSnapshot": True, "MonitoringInterval": 60, "MonitoringRoleArn": "arn:role",
    "PromotionTier": 1, "IAMDatabaseAuthenticationEnabled": True, "PerformanceInsightsEnabled": True,
    "PerformanceInsightsKMSKeyId": "key", "PerformanceInsightsRetentionPeriod": 7,
    "EnabledCloudwatchLogsExports": ["postgresql", "upgrade"], "DeletionProtection": True,
    "MaxAllocatedStorage": 1000, "NetworkType": "IPV4", "DedicatedLogVolume": False,
    "ProcessorFeatures": [{"Name": "coreCount", "Value": "4"}],
    "TagList": [{"Key": "team", "Value": "stamps"}, {"Key": "aws:cloudformation:stack-name", "Value": "x"},
                {"Key": "restore-runbook:run", "Value": "an earlier run"}],
}  # fmt: skip
CLUSTER = {
    "DBClusterIdentifier": "stampcard", "Engine": "aurora-postgresql", "EngineVersion": "16.6", "Port": 5433,
    "DBSubnetGroup": "private", "DBClusterParameterGroup": "tuned", "KmsKeyId": "key", "StorageEncrypted": True,
    "DeletionProtection": True, "BackupRetentionPeriod": 14, "PreferredBackupWindow": "01:00-01:30",
    "StorageType": "aurora-iopt1", "CopyTagsToSnapshot": True, "IAMDatabaseAuthenticationEnabled": True,
    "EnabledCloudwatchLogsExports": ["postgresql"], "NetworkType": "DUAL",
    "ServerlessV2ScalingConfiguration": {"MinCapacity": 0.5, "MaxCapacity": 8.0},
    "PreferredMaintenanceWindow": "sun:03:00-sun:03:30", "TagList": [{"Key": "team", "Value": "stamps"}],
    "VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-1", "Status": "active"}],
}  # fmt: skip


@pytest.fixture(scope="module")
def cloud() -> Cloud:
    """The service's model, without the service."""
    made = Cloud(region="eu-central-1", profile=None)
    made.__dict__["client"] = boto3.client(
        "rds", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="y"
    )
    return made


def source(raw, writer=None) -> Source:
    return Source(
        name="stampcard", resource_id="db-1", engine=raw["Engine"], status="available", earliest=None, latest=None,
        retention_days=14, groups=("sg-1",), public=True, size_gb=500, follows="", replicas=(), raw=raw,
        writer=writer or {},
    )  # fmt: skip


def instances(cloud: Cloud, **changes: object) -> Instances:
    return Instances(
        cloud,
        RdsProvider(
            instance="stampcard", region="eu-central-1", password_env="X", isolation_security_groups=("sg-2",),
            **changes,
        ),
    )  # fmt: skip


def clusters(cloud: Cloud, **changes: object) -> Clusters:
    return Clusters(
        cloud,
        AuroraProvider(
            cluster="stampcard", region="eu-central-1", password_env="X", isolation_security_groups=("sg-2",),
            **changes,
        ),
    )  # fmt: skip


def problems(cloud: Cloud, request: Request) -> str:
    """What the service's model says against a request."""
    meta = cloud.client.meta
    shape = meta.service_model.operation_model(meta.method_to_api_mapping[request.operation]).input_shape
    return ParamValidator().validate(dict(request.parameters), shape).generate_report()


@pytest.mark.parametrize("target", [TIME, LATEST], ids=["time", "latest"])
def test_requests_fit_the_services_model(cloud: Cloud, target: Target) -> None:
    """Names and types of all that is sent for a production with everything switched on."""
    made = [
        *instances(cloud).requests(source(INSTANCE), target, "copy", "run"),
        *clusters(cloud).requests(source(CLUSTER, INSTANCE), target, "copy", "run"),
    ]

    assert [problems(cloud, request) for request in made] == ["", "", ""]


def test_nothing_production_has_is_lost_on_the_way(cloud: Cloud) -> None:
    """False and production's figures are sent; AWS keeps its own tags, an earlier run's is not taken over."""
    (request,) = instances(cloud).requests(source(INSTANCE), TIME, "copy", "run")

    assert {**request.parameters} == {
        "SourceDBInstanceIdentifier": "stampcard", "TargetDBInstanceIdentifier": "copy",
        "RestoreTime": AT.replace(microsecond=0), "VpcSecurityGroupIds": ["sg-2"], "DBInstanceClass": "db.r6g.large",
        "DBSubnetGroupName": "private", "DBParameterGroupName": "tuned", "OptionGroupName": "options",
        "MultiAZ": True, "PubliclyAccessible": True, "DeletionProtection": True, "BackupRetentionPeriod": 14,
        "PreferredBackupWindow": "01:00-01:30", "StorageType": "gp3", "Iops": 12000, "StorageThroughput": 500,
        "MaxAllocatedStorage": 1000, "Port": 5433, "CopyTagsToSnapshot": True, "AutoMinorVersionUpgrade": False,
        "EnableIAMDatabaseAuthentication": True, "EnableCloudwatchLogsExports": ["postgresql", "upgrade"],
        "CACertificateIdentifier": "rds-ca-rsa2048-g1", "NetworkType": "IPV4",
        "ProcessorFeatures": [{"Name": "coreCount", "Value": "4"}],
        "Tags": [{"Key": "team", "Value": "stamps"}, {"Key": "restore-runbook:run", "Value": "run"}],
    }  # fmt: skip
    off = {**INSTANCE, "MultiAZ": False, "DeletionProtection": False, "AllocatedStorage": 100}
    (request,) = instances(cloud, instance_class="db.r6g.4xlarge", isolation_parameter_group="quiet").requests(
        Source(**{**{name: getattr(source(off), name) for name in Source.__dataclass_fields__}, "size_gb": 100}),
        LATEST, "copy", "run",
    )  # fmt: skip
    assert request.parameters["MultiAZ"] is False
    assert request.parameters["DeletionProtection"] is False
    assert request.parameters["DBInstanceClass"] == "db.r6g.4xlarge"
    assert request.parameters["DBParameterGroupName"] == "quiet"
    assert "Iops" not in request.parameters
    assert "RestoreTime" not in request.parameters


def test_a_cluster_is_sent_whole_and_its_writer_with_it(cloud: Cloud) -> None:
    """Storage first, then the instance that opens it; the KMS key, since this call takes it."""
    storage, writer = clusters(cloud).requests(source(CLUSTER, INSTANCE), TIME, "copy", "run")

    assert storage.operation == "restore_db_cluster_to_point_in_time"
    assert storage.parameters["RestoreToTime"] == AT.replace(microsecond=0)
    assert "RestoreTime" not in storage.parameters
    assert storage.parameters["RestoreType"] == "full-copy"
    assert storage.parameters["KmsKeyId"] == "key"
    assert storage.parameters["StorageType"] == "aurora-iopt1"
    assert storage.parameters["ServerlessV2ScalingConfiguration"] == {"MinCapacity": 0.5, "MaxCapacity": 8.0}
    assert storage.parameters["VpcSecurityGroupIds"] == ["sg-2"]
    assert writer.operation == "create_db_instance"
    assert writer.parameters["DBParameterGroupName"] == "tuned"
    assert writer.parameters["MonitoringInterval"] == 60
    assert writer.parameters["DBInstanceIdentifier"] == "copy-1"


def test_a_snapshots_own_version_is_asked_for(cloud: Cloud) -> None:
    """AWS would take its default version; validated against the service's model."""
    found = {"DBClusterSnapshotIdentifier": "nightly", "EngineVersion": "15.9", "Status": "available"}
    with Stubber(cloud.client) as stub:
        stub.add_response(
            "describe_db_cluster_snapshots", {"DBClusterSnapshots": [found]},
            {"DBClusterSnapshotIdentifier": "nightly"},
        )  # fmt: skip
        request, _ = clusters(cloud).requests(
            source(CLUSTER, INSTANCE), Target(kind=TargetKind.SNAPSHOT, value="nightly"), "copy", "run"
        )

    assert request.operation == "restore_db_cluster_from_snapshot"
    assert request.parameters["EngineVersion"] == "15.9"
    assert problems(cloud, request) == ""
    (request,) = instances(cloud).requests(
        source(INSTANCE), Target(kind=TargetKind.SNAPSHOT, value="nightly"), "copy", "run"
    )
    assert (request.parameters["DBSnapshotIdentifier"], request.parameters["DBInstanceIdentifier"]) == (
        "nightly",
        "copy",
    )
    assert problems(cloud, request) == ""


def test_deleting_never_takes_productions_backups(cloud: Cloud) -> None:
    """The call names the copy alone; its own backups go with it unless users wrote to it."""
    made = instances(cloud)
    stub = Stubber(cloud.client)
    described = {**INSTANCE, "DBInstanceIdentifier": "copy", "DeletionProtection": False}
    described.pop("ProcessorFeatures")
    stub.add_response("describe_db_instances", {"DBInstances": [described]}, {"DBInstanceIdentifier": "copy"})
    stub.add_response(
        "delete_db_instance", {},
        {"DBInstanceIdentifier": "copy", "SkipFinalSnapshot": True, "DeleteAutomatedBackups": True},
    )  # fmt: skip
    stub.add_response(
        "delete_db_instance", {},
        {"DBInstanceIdentifier": "copy", "SkipFinalSnapshot": False, "DeleteAutomatedBackups": False,
         "FinalDBSnapshotIdentifier": "last"},
    )  # fmt: skip
    with stub:
        copy = made.copy("copy")
        assert copy is not None
        made.delete(copy, final="")
        made.delete(copy, final="last")
    stub.assert_no_pending_responses()


def test_every_error_we_know_is_the_services(cloud: Cloud) -> None:
    """A code that AWS does not have would never be met; each of ours is in the catalogue."""
    model = cloud.client.meta.service_model
    theirs = {
        shape.error_code
        for name in model.operation_names
        for shape in model.operation_model(name).error_shapes
    }
    of_the_gateway = {
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "RequestExpired",
        "SignatureDoesNotMatch",
    }

    assert (set(CODES) | set(HINTS) | ABSENT | TAKEN | BUSY) - theirs == of_the_gateway
    assert set(CODES.values()) <= set(CATALOGUE)


def test_an_answer_that_does_not_come_is_an_error(cloud: Cloud) -> None:
    """With the operation and AWS's own words."""
    stub = Stubber(cloud.client)
    stub.add_client_error("describe_db_instances", "AccessDenied", "not authorized to perform it")

    with stub, pytest.raises(ProviderError) as error:
        cloud.call("describe_db_instances", DBInstanceIdentifier="x")

    assert error.value.code == "RB309"
    assert "describe_db_instances" in error.value.fact
    assert "not authorized" in error.value.fact


@pytest.mark.parametrize(
    ("profile", "code", "hint"),
    [
        ("login", "RB309", "log in again"),
        ("helper", "RB309", "log in again"),
        ("nobody", "RB106", "AWS_PROFILE"),
    ],
)
def test_a_login_that_has_expired_is_no_network_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str, code: str, hint: str
) -> None:
    """Single sign-on without its token, a helper that fails; a profile that is not there is told apart."""
    config = tmp_path / "config"
    config.write_text(
        "[profile login]\nsso_start_url = https://nobody.example\nsso_region = eu-central-1\n"
        "sso_account_id = 123456789012\nsso_role_name = restore\n"
        "[profile helper]\ncredential_process = /bin/false\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (
        ("AWS_CONFIG_FILE", config),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ("HOME", tmp_path),
    ):
        monkeypatch.setenv(name, str(value))

    with pytest.raises(RunbookError) as error:
        Cloud(region="eu-central-1", profile=profile).call("describe_db_instances")

    assert error.value.code == code
    assert hint in error.value.hints[0]


@pytest.mark.parametrize(
    ("name", "run"),
    [("stampcard", "20261128T040000Z-ab12"), ("a" * 63, "20261128T040000Z-ab12"), ("x--y-", "RUN__1"), ("s", "-" * 9 + "1")],
)  # fmt: skip
def test_a_copys_name_is_one_aws_takes(name: str, run: str) -> None:
    """Letters, digits and single hyphens, begun by a letter, at most 63 with a cluster's "-1" behind it."""
    made = identifier(name, run)

    assert len(made) <= LONGEST
    assert made[0].isalpha()
    assert not made.endswith("-")
    assert "--" not in made
    assert made == identifier(name, run)
    assert identifier(name, f"{run}x") != made


@pytest.mark.parametrize(
    ("at", "exclusive", "second"),
    [(AT, False, AT.replace(microsecond=0)), (AT, True, AT.replace(microsecond=0)),
     (AT.replace(microsecond=0), False, AT.replace(microsecond=0)),
     (AT.replace(microsecond=0), True, AT.replace(microsecond=0) - timedelta(seconds=1))],
)  # fmt: skip
def test_the_second_restored_to_is_never_later_than_the_target(at, exclusive: bool, second) -> None:
    """An exclusive target on a whole second ends a second before it."""
    assert restore_time(Target(kind=TargetKind.TIME, value="", at=at, exclusive=exclusive)) == second


def test_a_fence_without_credentials_says_where_they_may_come_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The runbook hands a fence no variables, so the SDK's hint alone would lead nowhere."""
    for name in [each for each in os.environ if each.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    assert fence(["--region", "eu-central-1", "--instance", "stampcard"]) != 0

    told = capsys.readouterr()
    assert told.out == ""
    assert "RB106" in told.err
    assert "add --profile" in told.err
