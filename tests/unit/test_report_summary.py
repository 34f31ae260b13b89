"""summary.json from a journal: stable, redacted, and honest about what is not known."""

import json
from datetime import UTC, datetime, timedelta

import jsonschema
import pytest

from fixtures.errors import ExitCode, JournalError
from fixtures.evidence import MASK, Verdict
from fixtures.journal import Journal, Undo, When
from fixtures.manifest import MANIFEST
from reports.charts import budget, latency, span
from reports.collect import collect
from reports.headline import headline
from reports.onefile import outside_references, visible_text
from reports.pages import banner, summary_page, tone
from reports.summary import (
    Objective,
    Sample,
    Service,
    Status,
    read_summary,
    redacted,
    schema_text,
    to_json,
    write_summary,
)

T0 = datetime(2025, 10, 5, 12, 40, tzinfo=UTC)
RUN = "20251005T124000Z-ab12"


@pytest.fixture
def journal(tmp_path):
    """An open journal of a run that has only just begun."""
    journal = Journal(tmp_path / RUN)
    journal.open()
    journal.append(
        "run-started", run_id=RUN, by="op", production="stampcard", provider="basebackup", config="x.toml",
        drill={}, options={"mode": "incident", "target": {"kind": "time", "value": "2025-10-05T12:34:00Z",
        "at": "2025-10-05T12:34:00Z", "exclusive": False}, "break_glass": ""},
    )  # fmt: skip
    yield journal
    journal.close()


def run_to_the_end(journal: Journal, *, rto_min: int = 30, protected: bool = True) -> None:
    """Write what a run that served leaves in its journal."""
    add = journal.append
    stamps = {"declared": T0, "damage": T0 - timedelta(minutes=6), "locked": T0 + timedelta(minutes=2)}
    for name, at in stamps.items():
        add("stamp", name=name, at=at.isoformat())
    add(
        "action-done", action="declared", result={"ticket": "/t/x.md"},
        config={"roles": {"owner": "A", "scribe": "B", "reviewer": "C"}},
    )  # fmt: skip
    add(
        "action-done",
        action="production_state",
        config={},
        result={"state": "reachable", "cluster": {"major": 18}},
    )
    add("action-done", action="safety_copy", config={}, result={"mode": "dump", "place": "/safety/x"})
    add(
        "action-done", action="target_reachable",
        config={"objectives": {"rpo": "15min", "rto": "1h"}},
        result={"target": {"kind": "time", "value": "2025-10-05T12:34:00Z", "at": "2025-10-05T12:34:00Z"}},
    )  # fmt: skip
    add(
        "action-done", action="discarded_window", config={},
        result={"from_at": "2025-10-05T12:34:00Z", "transactions": 7, "rows": 9, "window": {
            "tables": [{"table": "public.users", "inserted": 9, "updated": 0, "deleted": 0, "toast": 1}],
            "notes": ["views are not counted"]}},
    )  # fmt: skip
    ref = {"run_id": RUN, "name": "/restore/x", "host": "/run/x", "port": 5433, "user": "postgres"}
    add(
        "action-done", action="restored", config={},
        result={"instance": {"ref": ref, "backup_id": "base-1", "timeline": 1,
                             "last_commit_at": "2025-10-05T12:33:58Z"}},
    )  # fmt: skip
    add("action-done", action="opened", config={}, result={"instance": {"timeline": 2}})
    add("gate-passed", gate="cutover", hash="abc", people={"owner": "A (at the terminal)"}, shown=["moves"])
    with journal.intent("maintenance", undo=Undo(name="maintenance_off", args={}, when=When.RELEASE)):
        pass
    add("discharged", intent=journal.events[-2].seq, name="maintenance_off")
    add("switching", instance="x")
    since = None if protected else "2025-10-05T12:55:00Z"
    add(
        "action-done", action="commissioned", config={},
        result={"host": "10.0.0.1", "port": 5433, "unprotected_since": since, "archived_segment": "0001"},
    )  # fmt: skip
    add("stamp", name="served", at=(T0 + timedelta(minutes=rto_min)).isoformat())
    for test in MANIFEST:
        add("evidence", test=test, first=True, facts={"n": 1}, notes=[], at=T0.isoformat(), checks=[
            {"id": f"c:{test}", "step": test, "verdict": "pass", "blocking": True, "source": "", "object": "",
             "expected": "1", "actual": "1", "reason": ""}])  # fmt: skip
        add("result", test=test, status="passed", seconds=2.5, reason="")
    add("closed")
    add("run-ended", exit_code=0, meaning="served, monitored, closed")


def test_a_served_run_tells_every_figure(journal):
    """Clock, objectives, window, protection, people and approvals are read from the journal."""
    run_to_the_end(journal)

    found = collect(journal.folder, exit_code=0)

    assert found.verdict == "RESTORED AND SERVED · RPO met · RTO met"
    assert (found.rto.measured_s, found.rto.damage_to_served_s) == (1800.0, 2160.0)
    assert (found.rpo.measured_s, found.rpo.counted_from) == (2.0, "damage")
    assert (found.target.gap_s, found.backup_id) == (2.0, "base-1")
    assert found.versions["timeline restored"] == "2"
    assert (found.discarded_window.seconds, found.discarded_window.rows) == (480.0, 9)
    assert found.protected.state == "PROTECTED"
    assert found.people == {"owner": "A", "reviewer": "C", "scribe": "B"}
    assert found.approvals[0].people == {"owner": "A (at the terminal)"}
    assert found.rollback.entries[0].state == "discharged"
    assert found.restored == "10.0.0.1:5433"
    assert found.count("passed") == len(MANIFEST)
    assert found.journal_head == journal.events[-1].sha
    assert tone(found) == "good"


def test_the_clock_is_not_flattering(journal):
    """An objective that was missed says so, in the headline too."""
    run_to_the_end(journal, rto_min=90, protected=False)

    found = collect(journal.folder, exit_code=0)

    assert found.rto.verdict is Objective.MISSED
    assert found.verdict == "RESTORED AND SERVED · RPO met · RTO missed · UNPROTECTED"
    assert tone(found) == "bad"


def test_what_was_not_reached_is_unknown_and_not_zero(journal):
    """A run that stopped at once claims nothing."""
    found = collect(journal.folder, exit_code=11)

    assert found.rto.measured_s is None
    assert found.rto.verdict is Objective.UNKNOWN
    assert found.discarded_window.rows is None
    assert found.protected.state == "NOT COMMISSIONED"
    assert {step.status for step in found.steps} == {Status.NOT_RUN}
    assert found.verdict == "SUSPENDED, resumable"


def test_uncounted_rows_are_not_counted_as_minus_one(journal):
    """A window that could not be counted has no number."""
    journal.append("stamp", name="locked", at=T0.isoformat())
    journal.append(
        "action-done", action="discarded_window", config={},
        result={"from_at": "2025-10-05T12:34:00Z", "transactions": -1, "rows": -1, "window": None},
    )  # fmt: skip

    found = collect(journal.folder, exit_code=1)

    assert (found.discarded_window.rows, found.rpo.rows) == (None, None)
    assert "not counted" in summary_page(found)


def test_a_failed_run_names_the_step_and_the_rollback(journal):
    """The headline says where it failed, and the undo entries say what became of them."""
    with journal.intent("pause", undo=Undo(name="worker_resume", args={}, when=When.ROLLBACK)):
        pass
    seq = journal.events[-2].seq
    journal.append("result", test="s07.content", status="failed", seconds=1.0, reason="counts differ")
    journal.append("rolling-back", reason="s07.content failed", entries=1)
    journal.append("undo-failed", intent=seq, name="worker_resume", attempt=1, error="RB602 no")
    journal.append("rolled-back", complete=False, hold=False, switched=False)

    found = collect(journal.folder, exit_code=10)

    assert found.verdict.startswith("A PERSON MUST ACT, failed at 07.")
    assert found.verdict.endswith("ROLLBACK INCOMPLETE")
    assert found.rollback.entries[0].state == "failed"
    assert found.rollback.complete is False


def test_no_rollback_target_is_said(journal):
    """Where production did not serve there is nothing to go back to."""
    journal.append("action-done", action="production_state", config={}, result={"state": "down"})

    assert collect(journal.folder, exit_code=1).rollback.target_statement.startswith("NO ROLLBACK TARGET")


def test_open_questions_stand_on_the_first_screen(journal):
    """A non-blocking check that could not run is not a pass."""
    journal.append("evidence", test="s07.content", first=True, facts={}, notes=[], at=T0.isoformat(), checks=[
        {"id": "sum", "step": "s07.content", "verdict": "could-not-verify", "blocking": False, "source": "",
         "object": "public.users", "expected": "", "actual": "", "reason": "no reference"}])  # fmt: skip

    found = collect(journal.folder, exit_code=0)

    assert found.open_questions == ("sum public.users: could-not-verify, no reference",)
    assert "1 open question" in found.verdict
    assert tone(found) != "good"


def test_a_drill_that_is_torn_down_offers_no_instance(journal):
    """Nobody is sent to an instance that is gone."""
    run_to_the_end(journal)
    journal.append(
        "run-started", production="p", provider="b", options={"mode": "drill"}, drill={"kind": "embedded"}
    )

    assert collect(journal.folder, exit_code=0).restored == "gone with the drill's throwaway world"
    assert collect(journal.folder, exit_code=10).restored == "10.0.0.1:5433"


def test_a_damaged_journal_is_no_report(journal):
    """An edited journal is refused, not summarised."""
    path = journal.folder / "journal.jsonl"
    journal.append("note", text="x")
    path.write_text(path.read_text().replace("stampcard", "stampcart"))

    with pytest.raises(JournalError, match="RB201"):
        collect(journal.folder, exit_code=0)


def test_the_file_reads_back_and_follows_its_schema(journal, tmp_path):
    """What is written is what was meant, and what docs/ promises."""
    run_to_the_end(journal)
    found = collect(journal.folder, exit_code=0)

    write_summary(tmp_path / "summary.json", found)

    assert read_summary(tmp_path / "summary.json") == found
    jsonschema.validate(json.loads((tmp_path / "summary.json").read_text()), json.loads(schema_text()))
    assert not list(tmp_path.glob(".*.tmp"))


def test_the_file_is_redacted(journal):
    """Nothing personal gets through, whichever field it hides in."""
    found = collect(journal.folder, exit_code=0).model_copy(update={"production": "jane@example.org"})

    assert to_json(found)["production"] == MASK
    assert redacted(found).production == MASK


@pytest.mark.parametrize("code", list(ExitCode))
def test_every_exit_code_has_a_headline(journal, code):
    """No outcome is without words."""
    assert headline(collect(journal.folder, exit_code=int(code)))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "unknown"), (0, "0.0 s"), (0.018, "18 ms"), (12.34, "12.3 s"), (59.97, "60.0 s"), (60, "1 min"),
        (3600, "1 h"), (3725, "1 h 2 min 5 s"), (-5, "-5.0 s"),
    ],
)  # fmt: skip
def test_spans_read_as_people_say_them(seconds, text):
    """Short spans have decimals, long ones have units."""
    assert span(seconds) == text


def test_charts_say_what_did_not_start(journal):
    """A skipped step is "not started", never "0.0 s"."""
    journal.append("result", test="s00.ready", status="passed", seconds=3.0, reason="")
    found = collect(journal.folder, exit_code=1)

    chart = budget(found.steps, found.rto)

    assert chart.startswith("<svg")
    assert chart.count("not started") == 11
    assert budget((), found.rto) == ""


def test_latency_needs_two_samples():
    """One point is no line; gaps are left out."""
    samples = [
        Sample(at=T0 + timedelta(seconds=n), p95_ms=n * 1.0 if n != 1 else None, p99_ms=9.0) for n in range(4)
    ]

    assert latency(Service(samples=tuple(samples[:1]))) == ""
    chart = latency(Service(samples=tuple(samples), p95_objective_ms=300, p99_objective_ms=8))
    assert chart.count("<polyline") == 2
    assert "p95 objective 300 ms" in chart
    assert chart.count("stroke-dasharray") == 1


def test_the_page_is_inert_and_escaped(journal):
    """The printable page has no script, fetches nothing and shows markup as text."""
    journal.append("note", text="<script>alert(1)</script>", author="<b>")
    run_to_the_end(journal)

    page = summary_page(collect(journal.folder, exit_code=0), notice="<i>plain</i>")

    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;i&gt;plain" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    for told in (
        "DORA Art. 12(7)",
        "It is not a claim of compliance",
        "base-1",
        "8 min",
        "9 rows",
        "PROTECTED",
    ):
        assert told in page


def test_the_full_report_prints_every_figure(journal):
    """On paper and on a telephone the application cannot be read: the plain page's content stands in its place."""
    found = collect(journal.folder, exit_code=0)
    top = banner(found)

    shown = visible_text(top)
    plain = visible_text(summary_page(found)).split("What happened", 1)[1]
    assert [line for line in plain.splitlines() if line.strip() and line not in shown] == []
    assert "@media print,(max-width:760px)" in top
    assert outside_references(top) == []


def test_verdicts_are_those_of_the_evidence():
    """The schema offers exactly the verdicts a check can have."""
    schema = json.loads(schema_text())

    assert schema["$defs"]["Verdict"]["enum"] == [verdict.value for verdict in Verdict]
