"""
A simulator of RDS and Aurora: moto for the calls, two real PostgreSQL servers for what answers, no AWS.

In this process, where a test watches every call and arms what goes wrong; what moto gets wrong is known to the
drill's simulator, whose copies are real recoveries (fixtures/drill/rds_simulator). Here the addresses lead to
one production and one copy of it: it proves shapes of requests and answers, not AWS's restores.
"""

import copy as copying
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from botocore.awsrequest import AWSResponse
from moto import mock_aws

from fixtures.drill.rds_simulator.moto_account import (
    GROUPS,
    QUOTAS,
    REGION,
    as_sent,
    lay_out_cluster,
    lay_out_instance,
    quotas,
)
from fixtures.postgres.server import Server
from fixtures.providers.rds.backend import Managed

SOURCE = "stampcard"
#: of an answer, what moto gets wrong on instances and clusters alike
PUT_RIGHT = ("VpcSecurityGroups", "DeletionProtection")
CHANGING = ("Restore", "Create", "Modify", "Delete", "Reboot", "Add", "Remove")


@dataclass(kw_only=True)
class SimulatedAws:
    """
    An account with one production.

    Attributes:
        production, copy: the servers behind the addresses.
        groups: name -> id of the security groups.
        sent: (operation, parameters) of every call, in order.
        lag_s: how far the last restorable time lies behind now.
        answers: operation -> changes an answer before it is read.
        quotas: name -> used and most.
    """

    production: Server
    copy: Server
    groups: dict[str, str] = field(default_factory=dict)
    sent: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    lag_s: float = 0.0
    answers: dict[str, Callable[[dict[str, Any]], None]] = field(default_factory=dict)
    quotas: dict[str, tuple[int, int]] = field(default_factory=lambda: dict(QUOTAS))

    def watch(self, provider: Managed) -> None:
        """Record what a provider sends, and put right what moto answers wrongly."""
        events = provider._service.cloud.client.meta.events
        events.register("provide-client-params.rds", self._record)
        events.register("after-call.rds", self._answer)
        events.register("before-call.rds.DescribeAccountAttributes", self._quotas)
        provider._waiting = type(provider._waiting)(service=provider._service, timeout_s=20, look_s=0.05)

    def changing(self) -> list[str]:
        """Operations sent that change something."""
        return [name for name, _ in self.sent if name.startswith(CHANGING)]

    def last(self, operation: str) -> dict[str, Any]:
        """What was sent last with an operation."""
        return next(parameters for name, parameters in reversed(self.sent) if name == operation)

    def _record(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        self.sent.append((model.name, copying.deepcopy(params)))

    def _quotas(self, **_: Any) -> tuple[AWSResponse, dict[str, Any]]:
        """Answer what moto does not."""
        return AWSResponse("", 200, {}, None), quotas(self.quotas)

    def _answer(self, parsed: dict[str, Any], model: Any, **_: Any) -> None:
        for each in parsed.get("DBInstances") or ():
            self._put_right(each, "DBInstanceIdentifier")
        for each in parsed.get("DBClusters") or ():
            self._put_right(each, "DBClusterIdentifier")
        if model.name == "RebootDBInstance" and "Error" not in parsed:
            self.restart()
        if model.name in self.answers:
            self.answers[model.name](parsed)

    def _put_right(self, each: dict[str, Any], key: str) -> None:
        ours = each[key] != SOURCE and not each[key].startswith(f"{SOURCE}-writer")
        server = self.copy if ours else self.production
        if key == "DBInstanceIdentifier":
            each["Endpoint"] = {"Address": "127.0.0.1", "Port": server.port}
        else:
            each["Endpoint"], each["Port"] = "127.0.0.1", server.port
            each["EarliestRestorableTime"] = datetime.now(UTC) - timedelta(days=7)
        each["LatestRestorableTime"] = datetime.now(UTC) - timedelta(seconds=self.lag_s)
        if ours:
            resource = "DbiResourceId" if key == "DBInstanceIdentifier" else "DbClusterResourceId"
            each[resource] = f"resource-of-{each[key]}"
            for _, sent in self.sent:
                if each[key] in {sent.get(key), sent.get("TargetDBInstanceIdentifier")} and sent.get(
                    "VpcSecurityGroupIds"
                ):
                    right = as_sent(sent)
                    each.update((name, right[name]) for name in PUT_RIGHT if name in right)

    def restart(self) -> None:
        """Restart the copy's server, as a reboot does."""
        self.copy.stop()
        self.copy.wait_ready(self.copy.start({"fsync": "on"}))


@contextmanager
def simulated(production: Server, copy: Server) -> Iterator[SimulatedAws]:
    """Make the account: production as an instance and as a cluster, groups, a snapshot."""
    with mock_aws():
        rds = boto3.client("rds", region_name=REGION)
        lay_out_instance(rds, SOURCE)
        rds.create_db_snapshot(DBSnapshotIdentifier="nightly", DBInstanceIdentifier=SOURCE)
        lay_out_cluster(rds, SOURCE)
        rds.create_db_cluster_snapshot(DBClusterSnapshotIdentifier="nightly", DBClusterIdentifier=SOURCE)
        yield SimulatedAws(production=production, copy=copy, groups=GROUPS)
