"""The container drill's parts that need no engine: who sees what, what a probe proves, how a call travels."""

import json
import os
import signal
import socket
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.command import end_job, exit_status, run, spawn, wait_for
from fixtures.drill import clean as cleaning
from fixtures.drill.containers import broker as brokers
from fixtures.drill.containers import engine as engines
from fixtures.drill.containers import probes
from fixtures.drill.containers.broker import Broker, Call
from fixtures.drill.containers.engine import Engine
from fixtures.drill.containers.layout import Layout
from fixtures.drill.containers.server import address_of
from fixtures.drill.ground import choose_image
from fixtures.drill.record import Record
from fixtures.errors import ToolError, UsageError
from fixtures.journal import Journal
from fixtures.settings import Containers

SHIM = Path(brokers.__file__).with_name("shim.py")


@pytest.fixture
def layout(short_folder):
    """A world's layout, its folders made."""
    made = Layout(
        run_id="20261128T000000Z-0000", folder=short_folder, run_folder=short_folder / "run", image="postgres:18",
        subnet="172.20.0.0/16", port=5433, user=None,
    )  # fmt: skip
    made.programs.mkdir(parents=True)
    return made


@pytest.fixture
def short_folder(tmp_path_factory):
    """A folder whose sockets have a short path."""
    return tmp_path_factory.mktemp("w")


# -- who sees what -----------------------------------------------------------------------------------


def test_a_restored_copy_cannot_write_into_productions_archive_nor_see_its_data(layout):
    """It gets its own folders and the archive to read; production's data and backups it never sees."""
    places = layout.places
    seen = dict(layout.server_mounts(places.restored / "run" / "data"))

    assert seen[places.archive] == "ro"
    assert {path for path, mode in seen.items() if mode == "rw"} == {
        places.restored,
        places.new_archive,
        places.new_backups,
    }
    assert dict(layout.server_mounts(places.data)) == {
        places.data: "rw",
        places.sockets: "rw",
        places.archive: "rw",
    }


def test_only_a_copy_that_listens_gets_an_address(layout):
    """Isolated copies and throwaways have no network; production always has its own."""
    copy, throwaway = layout.places.restored / "run" / "data", layout.places.safety / "proof" / "data"

    assert address_of(layout, layout.places.data, listens=False) == "172.20.0.10"
    assert address_of(layout, copy, listens=False) == ""
    assert address_of(layout, copy, listens=True) == "172.20.0.20"
    assert address_of(layout, throwaway, listens=True) == ""


def test_a_major_version_is_one_of_the_configured():
    """The first is the default; another than the configured ones is refused by name."""
    configured = Containers(image="mine/pg:{major}", majors=(17, 16))

    assert choose_image(configured, None, provider="basebackup").name == "mine/pg:17"
    assert choose_image(configured, 16, provider="basebackup").major == 16
    with pytest.raises(UsageError, match="PostgreSQL 15 is not among the configured"):
        choose_image(configured, 15, provider="basebackup")
    with pytest.raises(UsageError, match="goes through the provider basebackup"):
        choose_image(configured, 16, provider="pgbackrest")
    with pytest.raises(UsageError, match="no drill in containers has the disaster down"):
        choose_image(configured, 16, provider="basebackup", disaster="down")


class Container:
    """A container whose programs say what the test wants."""

    def __init__(self, status, said):
        self.answer = type("Answer", (), {"exit_code": status, "output": said.encode()})

    def exec_run(self, *_, **__):
        """Return the one answer."""
        return self.answer


# -- where the engine is -----------------------------------------------------------------------------


class Box(Container):
    """A toolbox whose process and whose view of the proof the test chooses."""

    def __init__(self, said):
        super().__init__(0, said)
        self.attrs = {}

    def start(self):
        """Do nothing."""

    def reload(self):
        """Do nothing."""


class Client:
    """An engine that makes one toolbox and knows one image."""

    def __init__(self, box):
        self.containers = self.images = self
        self.box, self.attrs = box, {"Config": {"Volumes": None}}

    def create(self, *_, **__):
        """Return the toolbox."""
        return self.box

    def get(self, _):
        """Return the image."""
        return self


@pytest.mark.parametrize(
    ("here", "user", "accepted"), [(True, 0, True), (False, 0, False), (True, 1, False)],
    ids=["ours", "elsewhere", "rootless"],
)  # fmt: skip
def test_only_an_engine_that_shares_this_machine_is_used(here, user, accepted, layout, tmp_path, monkeypatch):
    """Its process must be one of this machine's, and our file must be ours inside as well."""
    monkeypatch.setattr(engines, "SEEN_S", 0.5)
    proof = layout.folder / "programs" / "proof"
    proof.touch()
    job = spawn(["tail", "-f", proof if here else "/dev/null"], name="tail", folder=tmp_path)
    box = Box(f"{layout.run_id} {os.geteuid() + user}\n")
    wait_for(lambda: _child_of(job.pid) is not None, timeout_s=20, what="tail runs")
    box.attrs = {"State": {"Pid": _child_of(job.pid)}}
    try:
        if accepted:
            Engine(Client(box)).start_toolbox(layout)
        else:
            with pytest.raises(ToolError, match="RB704"):
                Engine(Client(box)).start_toolbox(layout)
    finally:
        end_job(job)


def _child_of(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return next((int(each) for each in children if argv_of(each)[0] == "tail"), None)


def argv_of(pid) -> list[str]:
    """Return a process's command line, one empty word when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return [""]


# -- what a probe proves -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "said", "reached"),
    [
        (2, "connection to server at ... failed: Network is unreachable", False),
        (2, "failed: Connection refused\n\tIs the server running on that host", False),
        (2, "connection to server failed: timeout expired", False),
        (2, "fe_sendauth: no password supplied", True),
        (2, "FATAL:  no pg_hba.conf entry for host", True),
        (2, "received invalid response: expected authentication request", True),
        (2, "server closed the connection unexpectedly", True),
        (0, "1", True),
        (127, "psql: not found", True),
    ],
)
def test_only_nobodys_silence_counts_as_out_of_reach(status, said, reached, layout):
    """Whatever else psql says, even that it is missing, is no proof of isolation."""
    assert probes.Inside(layout, Container(status, said)).reaches("10.0.0.1", 5432) is reached


@pytest.mark.parametrize(
    ("reached", "control", "needs_control", "holds", "blocking"),
    [
        (False, True, True, True, True),
        (True, True, True, False, True),
        (False, False, True, False, True),
        (False, False, False, False, False),
        (True, False, False, False, True),
    ],
)
def test_a_probe_that_succeeds_nowhere_proves_nothing(reached, control, needs_control, holds, blocking):
    """It holds only where the control succeeds; what was reached always stops the run."""
    found = probes._told("x", "place", reached=reached, control=control, needs_control=needs_control)

    assert (found.holds, found.blocking) == (holds, blocking)


# -- how a call travels ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "argv", "serves"),
    [
        ("postgres", ("-D", "/d", "-c", "port=1"), True),
        ("postgres", ("-C", "port", "-D", "/d"), False),
        ("postgres", ("--version",), False),
        ("pg_dump", ("-D", "/d"), False),
    ],
)
def test_a_question_to_postgres_is_no_server(tool, argv, serves):
    """Only what serves gets a container of its own."""
    assert Call(tool=tool, argv=argv, env={}, owner=(0, 0), out=1, err=2).serves is serves


class Echo(Broker):
    """A broker that says what it was asked instead of asking an engine."""

    def _tool(self, call, caller):
        """Answer at once, or wait for a signal."""
        os.write(call.out, json.dumps([call.tool, *call.argv, call.env, call.owner]).encode())
        if call.argv[:1] != ("wait",):
            call.say("done")
            return 3
        told = []
        with brokers._listening(caller, told.append):
            os.write(call.err, b"waiting")
            wait_for(lambda: bool(told), timeout_s=20, what="a signal")
        Path(call.argv[1]).write_text(str(told[0]))
        return 128 + told[0]


@pytest.fixture
def program(layout):
    """A shim, and a broker that answers it."""
    shim = layout.programs / "pg_dump"
    shim.write_text(f"#!{sys.executable} -IS\n{SHIM.read_text()}")
    shim.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(layout.door))
        door.listen()
        serving = threading.Thread(target=_until_closed, args=(Echo(layout, frozenset({os.geteuid()})), door))
        serving.start()
        yield shim
        door.shutdown(socket.SHUT_RDWR)
        serving.join()


def _until_closed(broker, door):
    try:
        broker.serve(door)
    except OSError:
        return


def test_a_call_travels_with_arguments_variables_user_output_and_status(program):
    """What the program gets is what the caller gave, and PG variables alone of its environment."""
    done = run([program, "a b", "--x='"], timeout_s=20, check=False, env={"PGHOST": "/s", "SECRET": "no"})

    tool, first, second, env, owner = json.loads(done.stdout)
    assert (tool, first, second) == ("pg_dump", "a b", "--x='")
    assert env["PGHOST"] == "/s"
    assert "SECRET" not in env
    assert owner == [os.geteuid(), os.getegid()]
    assert done.stderr == "pg_dump: done\n"
    assert done.returncode == 3


@pytest.mark.parametrize(("number", "told"), [(signal.SIGTERM, 15), (signal.SIGQUIT, 3), (signal.SIGKILL, 9)])
def test_a_signal_to_the_shim_reaches_the_program(number, told, program, tmp_path):
    """A caller that is killed takes its program with it."""
    job = spawn([program, "wait", tmp_path / "told"], name="j", folder=tmp_path)
    wait_for(lambda: "waiting" in job.err.read_text(), timeout_s=20, what="the program waits")
    shim = next(
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if argv_of(entry.name)[1:3] == ["-IS", str(program)]
    )

    os.kill(shim, number)

    wait_for(lambda: exit_status(job) is not None, timeout_s=20, what="the shim ends")
    wait_for((tmp_path / "told").exists, timeout_s=20, what="the program was told")
    assert (tmp_path / "told").read_text() == str(told)


def test_a_stranger_is_not_served():
    """The kernel says who calls; nobody but the drill's own users has anything run."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs, ExitStack() as files:
        socket.send_fds(theirs, [b"\0\0\0\2"], [1, 2])
        theirs.sendall(b"{}")

        assert brokers._receive(ours, frozenset({os.geteuid() + 1}), files) is None


def test_a_shim_without_a_broker_says_so(layout):
    """Nothing pretends to have run."""
    shim = layout.programs / "pg_dump"
    shim.write_text(f"#!{sys.executable} -IS\n{SHIM.read_text()}")
    shim.chmod(0o755)
    done = run([shim], timeout_s=20, check=False)

    assert done.returncode == 125
    assert "broker does not answer" in done.stderr


# -- what a killed drill left ------------------------------------------------------------------------


def test_the_next_start_ends_killed_drills_alone(tmp_path, monkeypatch):
    """A stopped drill has said so in its journal, an embedded one has nothing in the engine: both are kept."""
    runs = tmp_path / "runs"
    for name in ("killed-building", "killed-running", "stopped", "embedded", "ended", "alive"):
        folder = runs / name
        folder.mkdir(parents=True)
        record = Record(folder / "world.json", tmp_path / name, {"run_id": name, "folder": "", "runner": {}})
        record.save(folder=str(tmp_path / name), engine=name != "embedded", ended=name == "ended")
        if name == "alive":
            record.adopt()
        if name in {"killed-running", "stopped"}:
            journal = Journal(folder)
            journal.open()
            journal.append("run-started", options={})
            if name == "stopped":
                journal.append("run-ended", exit_code=11)
            journal.close()
    monkeypatch.setattr(cleaning, "end_world", lambda path: (path.parent.name,))

    assert [said for _, said in cleaning.reap_killed(runs)] == [("killed-building",), ("killed-running",)]
