"""What is asked of a copy on a server we did not start: who it is, where it stopped, whether it keeps commits."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.command import run
from fixtures.errors import ConfigError, DatabaseError, ProviderError
from fixtures.evidence import Secret
from fixtures.postgres.server import Server, free_port
from fixtures.postgres.session import Endpoint, connect
from fixtures.providers import access
from fixtures.providers.base import Cluster, InstanceRef, RestoredInstance, Target, TargetKind
from fixtures.providers.remote import proof, serving

RUN = "run-remote"


class Places:
    """A backend that knows its copies by name."""

    def __init__(self, **endpoints: Endpoint) -> None:
        self.endpoints = endpoints

    def endpoint(self, name: str) -> Endpoint | None:
        return self.endpoints.get(name)

    def password(self, name: str, role: str) -> Secret | None:
        return Secret(f"of {role} on {name}")


@pytest.fixture(scope="module")
def servers(public_dir: Path, binaries) -> Iterator[tuple[Server, Server]]:
    """Two servers of one cluster: production, and its copy made while it was stopped."""
    home = public_dir / "remote"
    home.mkdir()
    binaries.own(home)
    production = Server(binaries, home / "data", free_port(), home, "postgres", home / "logs")
    production.initdb()
    with (production.data / "postgresql.conf").open("a") as conf:
        conf.write("listen_addresses = '127.0.0.1'\ntrack_commit_timestamp = on\nsynchronous_commit = on\n")
    job = production.start()
    production.wait_ready(job)
    with connect(production.endpoint) as session:
        session.do("CREATE TABLE public.t (n int)")
        session.do("INSERT INTO public.t VALUES (1)")
        session.do("ALTER ROLE postgres PASSWORD 'over the network'")
    production.stop()
    run(["cp", "-a", production.data, home / "copy"], timeout_s=60)
    copy = Server(binaries, home / "copy", free_port(), home, "postgres", home / "logs-copy")
    jobs = [each.start({"fsync": "on"}) for each in (production, copy)]
    for server, each in zip((production, copy), jobs, strict=True):
        server.wait_ready(each)
    yield production, copy
    for server in (production, copy):
        server.stop(mode="immediate")


def ref(name: str = "copy") -> InstanceRef:
    """A reference whose host only the backend knows."""
    return InstanceRef(run_id=RUN, name=name, host="", port=0, user="postgres")


def known(servers, **changes: object) -> proof.Elsewhere:
    """What is known besides what the copy says."""
    return replace(proof.Elsewhere(backend="the service", production=servers[0].endpoint), **changes)


def cluster(server: Server) -> Cluster:
    """Production's facts."""
    with connect(server.endpoint) as session:
        identifier = session.value("SELECT system_identifier::text FROM pg_control_system()")
    return Cluster(system_identifier=identifier, data_directory=str(server.data), port=server.port)


def test_a_copy_is_found_by_its_name_and_one_that_is_gone_does_not_answer(servers):
    """The backend is asked for host and password; nothing answers for a name it does not know."""
    access.located_by(RUN, Places(copy=servers[1].endpoint))

    assert ref().endpoint == servers[1].endpoint
    assert access.password_of(RUN, "copy", "app") == Secret("of app on copy")
    with pytest.raises(DatabaseError) as gone, connect(ref("gone").endpoint):
        pass
    assert gone.value.code == "RB503"


def test_a_run_without_a_backend_opens_one_or_says_so():
    """An undo entry may be the first to ask."""
    access.opened_by("run-late", lambda: access.located_by("run-late", Places()))

    assert access.locate("run-late", "x").host == access.NOWHERE
    with pytest.raises(ProviderError) as error:
        access.locate("run-of-nobody", "x")
    assert error.value.code == "RB312"


def test_two_addresses_of_one_server_are_told_from_two_servers(servers):
    """The same lock is seen through a socket and through TCP, and not by the other server."""
    production, copy = servers
    over_tcp = Endpoint("127.0.0.1", production.port, "postgres", password=Secret("over the network"))

    assert proof.same_server(production.endpoint, over_tcp.on("template1")) is True
    assert proof.same_server(production.endpoint, copy.endpoint) is False
    assert proof.same_server(production.endpoint, Endpoint(access.NOWHERE, 1, "x")) is None


def test_the_copy_is_proven_to_be_no_other_and_not_production(servers):
    """System identifier, another server, and its own name where it knows one."""
    production, copy = servers
    facts = cluster(production)
    access.located_by(RUN, Places(copy=copy.endpoint, wrong=production.endpoint))

    proof.refuse(proof.identity(ref(), facts, known(servers)), ref(), known(servers))
    for reference, told, changes in (
        (ref("wrong"), "another server", {}),
        (ref(), "system_identifier", {}),
        (ref(), "its own name", {"named": (("server_version_num", "no"),)}),
    ):
        own = replace(facts, system_identifier="1") if told == "system_identifier" else facts
        findings = proof.identity(reference, own, known(servers, **changes))
        with pytest.raises(ProviderError) as error:
            proof.refuse(findings, reference, known(servers))
        assert error.value.code == "RB312"
        assert told in error.value.fact


def test_a_production_that_does_not_answer_is_no_proof_and_no_obstacle(servers):
    """Restoring is most needed when production is down."""
    access.located_by(RUN, Places(copy=servers[1].endpoint))
    down = known(servers, production=Endpoint(access.NOWHERE, 1, "x"))

    findings = proof.identity(ref(), cluster(servers[0]), down)

    (other,) = [each for each in findings if each.subject == "another server"]
    assert not other.holds
    assert not other.blocking
    proof.refuse(findings, ref(), down)


def test_the_last_commit_is_what_production_had_committed(servers):
    """A promoted copy has no replay position: its commit times say how far it reaches; its own do not count."""
    production, copy = servers
    access.located_by(RUN, Places(copy=copy.endpoint))
    with connect(production.endpoint) as session:
        xid, at = session.row(
            "SELECT xmin::text::int, pg_xact_commit_timestamp(xmin) FROM pg_authid WHERE rolname = 'postgres'"
        )
    with connect(copy.endpoint) as session:
        session.do("CREATE TABLE public.own_doing ()")
    claimed = RestoredInstance(
        ref=ref(), backup_id="b", paused=False, stopped_at=None, last_commit_at=None, last_commit_xid=None,
        stop_reason="", timeline=None, seconds=0.0,
    )  # fmt: skip

    found = proof.measured(claimed, known(servers))

    assert (found.last_commit_xid, found.last_commit_at) == (xid, at)
    proof.refuse_overshoot(found, Target(kind=TargetKind.TIME, at=at), known(servers))
    with pytest.raises(ProviderError):
        proof.refuse_overshoot(found, Target(kind=TargetKind.TIME, at=at, exclusive=True), known(servers))
    with pytest.raises(ProviderError) as error:
        proof.measured(replace(claimed, paused=True), known(servers))
    assert error.value.code == "RB310"


def test_isolation_asks_what_the_copy_could_fetch(servers):
    """A subscription that came with the copy would pull from production's publisher."""
    _, copy = servers
    access.located_by(RUN, Places(copy=copy.endpoint))
    with connect(copy.endpoint) as session:
        session.do(
            "CREATE SUBSCRIPTION feed CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p"
            " WITH (connect = false, slot_name = 'feed')"
        )
        session.do("ALTER SUBSCRIPTION feed ENABLE")
    findings = proof.isolation(ref(), cluster(servers[0]), known(servers))

    with pytest.raises(ProviderError) as error:
        proof.refuse(findings, ref(), known(servers))

    assert error.value.code == "RB311"
    assert "subscriptions" in error.value.fact
    with connect(copy.endpoint) as session:
        session.do("ALTER SUBSCRIPTION feed DISABLE")
        session.do("ALTER SUBSCRIPTION feed SET (slot_name = NONE)")
        session.do("DROP SUBSCRIPTION feed")


def test_a_commit_must_survive_a_restart_that_took_place(servers):
    """A restart that restarted nothing proves nothing; switched-off durability is named."""
    _, copy = servers

    def restart() -> None:
        copy.stop()
        starts.append(f"restart-{len(starts)}")
        copy.wait_ready(copy.start(how, name=starts[-1]))

    how, starts = {"fsync": "on"}, []
    marker = serving.commit_marker(copy.endpoint)
    with pytest.raises(ProviderError) as error:
        serving.survives_restart(copy.endpoint, marker, lambda: None)
    assert error.value.code == "RB313"

    assert serving.survives_restart(copy.endpoint, marker, restart)
    assert not serving.survives_restart(copy.endpoint, marker + 1000, restart)
    how["fsync"] = "off"
    assert not serving.survives_restart(copy.endpoint, marker, restart)
    access.located_by(RUN, Places(copy=copy.endpoint))
    with pytest.raises(ProviderError) as unfit:
        serving.refuse_unfit(ref(), known(servers), durable=True, claimed="")
    assert "fsync is off" in unfit.value.fact
    how["fsync"] = "on"
    restart()
    assert serving.refuse_unfit(ref(), known(servers), durable=True, claimed="") == ""


def test_opening_a_backend_may_itself_ask_where_production_is():
    """A process that resumes behind a commissioning asks first; a local copy's backend moves nothing."""
    asked = []

    def opener() -> None:
        asked.append(access.production_now("run-nested"))

    access.opened_by("run-nested", opener)

    assert access.production_now("run-nested") is None
    assert access.production_now("run-nested") is None
    assert asked == [None]

    def unset() -> None:
        raise ConfigError("RB106", "environment variable KEY is not set")

    access.opened_by("run-unset", unset)
    for _ in range(2):
        with pytest.raises(ConfigError):
            access.production_now("run-unset")
