"""What reaches the results folder: nothing personal, no false green, no missing step."""

import base64
import json
import signal
import textwrap
from pathlib import Path

import pytest

from fixtures.allure_guard import ATTACHMENT_BYTES, clean_attachment, step_title
from fixtures.evidence import MASK, find_leaks

ROOT = Path(__file__).parents[2]
CANARIES = {
    "known": "correct-horse-battery",
    "dsn": "postgresql://app:hunter2hunter2@db/x",
    "mail": "jane.doe@example.org",
    "iban": "DE89 3704 0044 0532 0130 00",
    "card": "4111111111111111",
}
#: what must not be found anywhere
NEEDLES = ("correct-horse-battery", "hunter2hunter2", "jane.doe", "0532 0130", "4111111111111111")

LEAKING = f"""
import allure, pytest, sys, logging
from fixtures.evidence import Secret

CANARIES = {CANARIES!r}
Secret(CANARIES["known"])
step = lambda name: pytest.mark.dependency(name=name)

@allure.step("asks {{0}}")
def ask(value, other=None):
    allure.attach(value, name=value)

@pytest.fixture
def noisy():
    yield "x"
    allure.attach(" ".join(CANARIES.values()), name="teardown")
    raise RuntimeError(CANARIES["mail"])

@step("s07.content")
def test_assertion():
    row = CANARIES
    assert row == {{}}

@step("s07.identity")
@pytest.mark.parametrize("value", list(CANARIES.values()))
def test_parameter(value, noisy, tmp_path):
    allure.dynamic.parameter("p", value)
    allure.dynamic.description(value)
    allure.dynamic.link("http://x/" + value, name=value)
    allure.attach(value.encode(), name="bytes")
    allure.attach(b"\\xff\\xfe" + value.encode(), name="binary")
    file = tmp_path / "f.txt"
    file.write_text(value)
    allure.attach.file(file, name="file")
    allure.global_attach(value, name=value)
    allure.global_error(message=value)
    ask(value, other=value)
    print(value)
    print(value, file=sys.stderr)
    logging.warning(value)
    raise ValueError(value)

def test_skip():
    pytest.skip(CANARIES["mail"])
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    """Run a suite with the guard in its own process; return its results by title."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(source: str, *args: str) -> dict[str, dict]:
        pytester.makepyfile(test_it=textwrap.dedent(source))
        pytester.runpytest_subprocess(
            "-p", "fixtures.allure_guard", "-p", "no:cacheprovider", f"--alluredir={pytester.path}/out", *args
        )
        return results(pytester.path / "out")

    return run


def results(folder: Path) -> dict[str, dict]:
    """Return results by title."""
    loaded = [json.loads(file.read_text()) for file in folder.glob("*-result.json")]
    return {result["name"]: result for result in loaded}


def test_no_canary_reaches_the_results(suite, pytester):
    """Secrets and personal data in asserts, parameters, steps, links, attachments and output are masked."""
    suite(LEAKING, "--tb=long", "--showlocals")

    files = [file for file in (pytester.path / "out").iterdir() if file.is_file()]
    text = "\n".join(f"{file.name}\n{file.read_bytes().decode()}" for file in files)

    assert len(files) > 20
    assert [needle for needle in NEEDLES if needle in text] == []
    assert [b for b in NEEDLES if base64.b64encode(b.encode()).decode()[:12] in text] == []
    assert MASK in text
    assert not any(find_leaks(string) for file in files if file.suffix == ".json" for string in strings(file))


def strings(file: Path) -> list[str]:
    """Return every string of a JSON file."""

    def walk(value):
        if isinstance(value, dict):
            return [text for item in value.values() for text in walk(item)]
        if isinstance(value, list):
            return [text for item in value for text in walk(item)]
        return [value] if isinstance(value, str) else []

    return walk(json.loads(file.read_text()))


def test_machine_and_process_are_not_named(suite):
    """Host and process id are replaced, not dropped: the timeline needs the labels."""
    result = suite("def test_x(): pass")["test_x"]
    labels = {label["name"]: label["value"] for label in result["labels"]}

    assert (labels["host"], labels["thread"]) == ("operator-host", "runbook")


@pytest.mark.parametrize(
    ("where", "source"),
    [
        (
            "setup",
            "@pytest.fixture\ndef f(): raise KeyboardInterrupt\n@step('s07.content')\ndef test_x(f): pass",
        ),
        ("call", "@step('s07.content')\ndef test_x(): raise KeyboardInterrupt"),
        ("call", "@step('s07.content')\ndef test_x(): pytest.exit('enough')"),
        (
            "teardown",
            "@pytest.fixture\ndef f():\n    yield\n    raise KeyboardInterrupt\n@step('s07.content')\ndef test_x(f): pass",
        ),
    ],
    ids=["setup", "call", "exit", "teardown"],
)
def test_an_interrupted_step_is_broken(suite, where, source):
    """A step whose phases did not all report is never passed, and what follows is named as not run."""
    head = "import pytest\nstep = lambda name: pytest.mark.dependency(name=name)\n"
    found = suite(f"{head}{source}\n@step('s08.canary')\ndef test_y(): pass\n")

    interrupted, never = found[step_title("s07.content")], found[step_title("s08.canary")]
    assert interrupted["status"] == "broken"
    assert interrupted["statusDetails"]["message"].startswith("INTERRUPTED, outcome unknown")
    assert f"(in {where})" in interrupted["statusDetails"]["message"]
    assert never["status"] == "skipped"
    assert never["statusDetails"]["message"].startswith("NOT RUN")
    assert interrupted["historyId"]
    assert never["historyId"]


def test_sigterm_does_not_leave_a_green_step(suite):
    """A terminating signal that arrives as KeyboardInterrupt leaves the step broken."""
    source = f"""
    import os, pytest, signal
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    @pytest.mark.dependency(name="s05.restored")
    def test_x():
        os.kill(os.getpid(), {int(signal.SIGTERM)})
    """
    assert suite(source)[step_title("s05.restored")]["status"] == "broken"


def test_statuses_say_what_the_ledger_says(suite):
    """Expected errors fail with their block, bugs are broken, xfail is no pass, a suspension is a skip."""
    found = suite("""
    import pytest
    from fixtures.errors import StepError, SuspendedError
    def test_claim(): assert 1 == 2
    def test_expected(): raise StepError("RB402", "the lock is not proven", hints=["look"])
    def test_bug(): raise ZeroDivisionError
    @pytest.mark.xfail(strict=False)
    def test_xfail(): assert False
    @pytest.mark.xfail(strict=False)
    def test_xpass(): pass
    def test_suspended(): raise SuspendedError("RB206", "waits")
    def test_skipped(): pytest.skip("because")
    @pytest.fixture
    def late():
        yield
        raise ZeroDivisionError
    def test_teardown(late): pass
    def test_fine(): pass
    """)

    assert {name: result["status"] for name, result in found.items()} == {
        "test_claim": "failed",
        "test_expected": "failed",
        "test_bug": "broken",
        "test_xfail": "failed",
        "test_xpass": "failed",
        "test_suspended": "skipped",
        "test_skipped": "skipped",
        "test_teardown": "broken",
        "test_fine": "passed",
    }
    assert found["test_expected"]["statusDetails"]["message"] == "RB402 the lock is not proven\n  HINT: look"
    assert found["test_skipped"]["statusDetails"] == {"message": "because"}


def test_steps_are_titled_in_the_runbooks_order(suite):
    """Titles sort as the runbook runs; phase, epic and severity are labels."""
    found = suite("""
    import pytest
    @pytest.mark.dependency(name="s09.switched")
    def test_x(): pass
    """)
    labels = {label["name"]: label["value"] for label in found[step_title("s09.switched")]["labels"]}

    assert found[step_title("s09.switched")]["titlePath"] == ["09 · Cut over"]

    assert labels["epic"] == "Restore Database"
    assert labels["feature"] == "C Verify and cut over"
    assert labels["severity"] == "critical"


def test_evidence_becomes_tables_and_inner_steps(suite, pytester):
    """Facts are a Markdown table, checks a CSV table and one inner step each."""
    found = suite("""
    from datetime import UTC, datetime
    from fixtures.allure_guard import attach_evidence, describe
    from fixtures.evidence import Check, Evidence, Verdict
    def test_x():
        describe("Integrity: counts", 7, "C Verify and cut over", "blocker", part=2)
        ask = lambda id, verdict: Check(
            id=id, step="s07.content", verdict=verdict, blocking=True, object="public.users", expected="5",
            actual="4", reason="one is missing")
        attach_evidence(Evidence(
            test="s07.content", at=datetime.now(UTC), facts={"rows": 5, "a|b": None},
            checks=(ask("rows", Verdict.PASS), ask("sum", Verdict.FAIL), ask("fdw", Verdict.NOT_APPLICABLE)),
            notes=("views are not covered",)))
    """)
    result = found["07.02 · Integrity: counts"]

    assert [(step["name"].partition(":")[0], step["status"]) for step in result["steps"]] == [
        ("pass", "passed"), ("fail", "failed"), ("not-applicable", "skipped"), ("Note", "passed"),
    ]  # fmt: skip
    bodies = {
        item["type"]: (pytester.path / "out" / item["source"]).read_text() for item in result["attachments"]
    }
    assert "| rows | 5 |\n| a\\|b |  |" in bodies["text/markdown"]
    assert "fail,sum,public.users,5,4,,yes,one is missing" in bodies["text/csv"]


def test_it_is_inert_without_a_results_folder(pytester, monkeypatch):
    """Nothing is written and nothing changes when no results folder is set."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile("def test_x(): pass")

    outcome = pytester.runpytest_subprocess("-p", "fixtures.allure_guard", "-p", "no:cacheprovider")

    outcome.assert_outcomes(passed=1)
    assert not list(pytester.path.glob("**/*-result.json"))


def test_a_long_attachment_keeps_head_tail_and_hash():
    """A huge log does not bloat the report, and what was cut is said."""
    cut = clean_attachment("A" * ATTACHMENT_BYTES + "middle" + "Z" * ATTACHMENT_BYTES).decode()

    assert cut.startswith("AAA")
    assert cut.endswith("ZZZ")
    assert "middle" not in cut
    assert f"{2 * ATTACHMENT_BYTES + 6} bytes in all, sha256 " in cut


def test_a_binary_attachment_is_withheld():
    """What cannot be searched is not written."""
    assert clean_attachment(b"\xff\xfejane.doe@example.org").startswith(b"withheld: 22 bytes")
