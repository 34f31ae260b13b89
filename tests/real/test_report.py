"""A whole report, rendered for real from results that a pytest session wrote."""

import base64
import json
import re
import textwrap
from pathlib import Path

import pytest

from fixtures.errors import RunbookError
from fixtures.journal import Journal
from fixtures.manifest import MANIFEST
from reports import renderer, seal
from reports.__main__ import main
from reports.leaks import scan
from reports.onefile import embedded_parts, outside_references
from reports.publish import publish

ROOT = Path(__file__).parents[2]
RUN = "20251005T124000Z-ab12"
CANARIES = {
    "dsn": "postgresql://app:hunter2hunter2@db/x",
    "mail": "jane.doe@example.org",
    "iban": "DE89 3704 0044 0532 0130 00",
    "card": "4111111111111111",
}
NEEDLES = ("hunter2hunter2", "jane.doe", "0532 0130", "4111111111111111")
SUITE = """
import allure, pytest
from datetime import UTC, datetime
from fixtures.allure_guard import attach_evidence
from fixtures.evidence import Check, Evidence, Verdict

CANARIES = {canaries!r}
step = lambda name: pytest.mark.dependency(name=name)

@step("s00.ready")
def test_ready():
    attach_evidence(Evidence(test="s00.ready", at=datetime.now(UTC), facts={{"backups": 3, "to": CANARIES["mail"]}},
        checks=(Check(id="backups", step="s00.ready", verdict=Verdict.PASS, blocking=True, expected="1", actual="3"),)))

@step("s05.restored")
@pytest.mark.parametrize("value", list(CANARIES.values()))
def test_restored(value):
    allure.attach(value, name=value)
    assert CANARIES == {{}}, value

@step("s07.content")
def test_content():
    with allure.step("counts " + CANARIES["iban"]):
        raise KeyboardInterrupt

@step("s08.canary")
def test_canary():
    pass
"""


@pytest.fixture(scope="session", autouse=True)
def _generator():
    """These tests are about the full report: without its generator they fail, they do not pass by."""
    if not renderer.installed():
        pytest.fail("the Allure generator is not installed; run: make setup")


@pytest.fixture
def run_dir(pytester, monkeypatch):
    """A run's folder with a journal and Allure results of an interrupted session."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = pytester.path / "runs" / RUN
    pytester.makepyfile(test_it=textwrap.dedent(SUITE.format(canaries=CANARIES)))
    pytester.runpytest_subprocess(
        "-p", "fixtures.allure_guard", "-p", "no:cacheprovider", f"--alluredir={folder / 'allure-results'}"
    )
    journal = Journal(folder)
    journal.open()
    journal.append(
        "run-started", production="stampcard", provider="basebackup", drill={"kind": "embedded", "disaster": "deploy"},
        options={"mode": "drill"},
    )  # fmt: skip
    journal.append("stamp", name="declared", at="2025-10-05T12:40:00+00:00")
    journal.append("note", text=f"call {CANARIES['mail']}", author="Scribe")
    journal.append("result", test=MANIFEST[0], status="passed", seconds=1.5, reason="")
    journal.append(
        "result", test="s07.content", status="broken", seconds=0, reason="interrupted, outcome unknown"
    )
    journal.append("run-ended", exit_code=2, meaning="interrupted and rolled back")
    journal.close()
    return folder


def everything(folder: Path) -> str:
    """Return all text of a folder, with what pages and scripts embed decoded."""
    texts = []
    for path in folder.rglob("*"):
        if path.is_file():
            text = path.read_text(errors="replace")
            texts += [path.name, text]
            texts += [body for _, body in embedded_parts(text)] if path.suffix == ".html" else []
            for blob in re.findall(r"base64,([A-Za-z0-9+/=]+)", text):
                texts.append(base64.b64decode(blob).decode(errors="replace"))
    return "\n".join(texts)


def test_the_full_report_is_one_sealed_file(run_dir):
    """Rendered by Allure, verdict first, nothing fetched, no canary in any file or embedded part."""
    report = publish(run_dir, exit_code=2)

    text = report.read_text()
    parts = dict(embedded_parts(text))
    shown = everything(run_dir)
    assert "This is the plain report" not in text
    assert any(name.startswith("data/test-results/") for name in parts)
    assert outside_references(text) == []
    assert "googletagmanager" not in shown
    assert "Content-Security-Policy" in text
    assert re.search(r"<title>INTERRUPTED.*stampcard", text)
    assert text.index('class="rr-first') < text.index('<div id="app">')
    assert [needle for needle in NEEDLES if needle in shown] == []
    assert scan(run_dir) == []


def test_the_interrupted_step_is_broken_in_the_report(run_dir):
    """Neither the step that was running nor one that never began is green, and both are there."""
    report = publish(run_dir, exit_code=2)

    results = [
        json.loads(body)
        for name, body in embedded_parts(report.read_text())
        if name.startswith("data/test-results/") and '"status"' in body
    ]
    status = {result["name"]: result["status"] for result in results}
    content = next(name for name in status if "content" in name)
    canary = next(name for name in status if "Canary" in name)
    assert (status[content], status[canary]) == ("broken", "skipped")
    assert any("INTERRUPTED, outcome unknown" in json.dumps(result) for result in results)


def test_the_summary_travels_inside_the_report(run_dir):
    """report.html alone holds the printable summary too."""
    parts = dict(embedded_parts(publish(run_dir, exit_code=2).read_text()))

    assert any("Where an auditor finds it" in body for body in parts.values())
    assert "summary-globals.json" not in {path.name for path in (run_dir / "allure-results").iterdir()}


def test_a_leak_withholds_the_pages(run_dir):
    """What slipped past the writer ends with RB802; pages and seal are gone, the text is not quoted."""
    (run_dir / "logs").mkdir()
    (run_dir / "logs" / "pg.out").write_text("DETAIL: Key (email)=(jane.doe@example.org) already exists.")

    with pytest.raises(RunbookError, match="RB802") as caught:
        publish(run_dir, exit_code=0)

    assert "logs/pg.out: e-mail address" in str(caught.value)
    assert "jane.doe" not in str(caught.value)
    assert [name for name in ("report.html", "summary.html", seal.SUMS) if (run_dir / name).exists()] == []
    assert not (run_dir.parent.parent / "history.jsonl").exists()


def test_the_command_renders_verifies_and_lists(run_dir, capsys):
    """`python -m reports` does what docs/report.md says."""
    publish(run_dir, exit_code=2)
    where = ["--runs", str(run_dir.parent)]

    assert main([*where, "--verify"]) == 0
    (run_dir / "summary.html").write_text("x")
    assert main([*where, RUN[:8], "--verify"]) == 12
    assert main([*where, "latest"]) == 0
    assert main([*where, "--verify"]) == 0
    assert main([*where, "--history"]) == 0
    assert main([*where, "2031"]) == 4

    told = capsys.readouterr()
    assert "summary.html was changed" in told.err
    assert told.out.count(RUN) >= 3
    assert len((run_dir.parent.parent / "history.jsonl").read_text().splitlines()) == 1


def test_a_renderer_that_fails_costs_no_report(run_dir, monkeypatch, tmp_path):
    """A broken generator leaves the plain page, which says what went wrong."""
    broken = tmp_path / "cli.js"
    broken.write_text("process.exit(3)")
    monkeypatch.setattr(renderer, "ALLURE", broken)

    text = publish(run_dir, exit_code=2).read_text()

    assert "This is the plain report" in text
    assert "ended with status 3" in text
    assert seal.verify(run_dir) == []
