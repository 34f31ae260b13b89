"""The CI templates: valid by their vendors' schemas, made of documented commands, handing out no rows."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from fixtures.errors import ExitCode
from fixtures.options import add_options

ROOT = Path(__file__).parents[2]
CI = ROOT / "docs" / "ci"
GITHUB, GITLAB, JENKINS = CI / "github-actions.yml", CI / "gitlab-ci.yml", CI / "Jenkinsfile"
TEMPLATES = [GITHUB, GITLAB, JENKINS]
SCHEMAS = {
    GITHUB: ("vendor.github-workflows",),
    GITLAB: ("vendor.gitlab-ci", "--data-transform", "gitlab-ci"),
}
#: what may be handed out of a run's folder
HANDED_OUT = {"report.html", "summary.html", "summary.json"}
#: names in a run's folder that hold rows or secrets
ROWS = ("packs", "secrets", "fetched-wal", "safety", "bindings.json", "allure-results")


def name(path):
    """Return a template's id."""
    return path.name


def loaded(path):
    """Return a YAML template as plain data."""
    return YAML(typ="safe").load(path.read_text())


def scripts(path):
    """Return every shell script of a template."""
    if path is GITHUB:
        return [
            step["run"] for job in loaded(path)["jobs"].values() for step in job["steps"] if "run" in step
        ]
    if path is GITLAB:
        jobs = [job for key, job in loaded(path).items() if key != "variables"]
        return [line for job in jobs for part in ("script", "after_script") for line in job.get(part, ())]
    return [
        long or short
        for long, short in re.findall(r"sh '''(.*?)'''|sh '([^'\n]+)'", path.read_text(), re.DOTALL)
    ]


def commands(path):
    """Return every line of every script, without its indentation."""
    return [line.strip() for script in scripts(path) for line in script.splitlines() if line.strip()]


def judged(path, template):
    """Ask the vendor's published schema about a file."""
    schema, *more = SCHEMAS[template]
    return subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *more, str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("template", SCHEMAS, ids=name)
def test_a_template_fits_its_vendors_schema(template):
    """What the vendor's own editor support would accept."""
    result = judged(template, template)

    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("template", "old", "new"),
    [
        (GITHUB, "runs-on:", "run-on:"),
        (GITLAB, "    when: always\n    expire_in", "    when: sometimes\n    expire_in"),
    ],
    ids=["github", "gitlab"],
)
def test_the_schema_finds_a_slip(template, old, new, tmp_path):
    """The check above can fail."""
    broken = tmp_path / template.name
    broken.write_text(template.read_text().replace(old, new))

    assert judged(broken, template).returncode == 1


def test_the_jenkinsfile_is_a_declarative_pipeline():
    """Its braces match, its sections are there, and every closure belongs to a known step."""
    text = re.sub(
        r"//[^\n]*|'''.*?'''|'[^'\n]*'",
        lambda found: "" if found[0].startswith("//") else "''",
        JENKINS.read_text(),
        flags=re.DOTALL,
    )
    depth = 0
    for letter in text:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    opened = re.findall(r"(\w+)(?:\([^)]*\))?\s*\{", text)

    assert depth == 0
    assert text.strip().startswith("pipeline {")
    assert opened == [
        "pipeline", "agent", "triggers", "parameters", "options", "environment", "stages", "stage", "steps", "stage",
        "steps", "post", "always",
    ]  # fmt: skip
    assert "disableConcurrentBuilds()" in text


@pytest.mark.parametrize("template", TEMPLATES, ids=name)
def test_every_command_is_a_documented_one(template):
    """The page about CI shows the same lines, and each of them is one the programs take."""
    page = (ROOT / "docs" / "how-to" / "ci.md").read_text()
    lines = commands(template)
    documented = re.search(r"```sh\n(.*?)```", page, re.DOTALL)[1].splitlines()
    asked = [line.replace("ASKED:-", "SEED:-") for line in lines]

    assert set(documented) <= set(asked)
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {line.split()[1] for line in lines if line.startswith("make ")} <= targets


@pytest.mark.parametrize("template", TEMPLATES, ids=name)
def test_every_option_is_taken(template):
    """The runbook's parser and the reports' know each option."""
    parser = pytest.Parser(_ispytest=True)
    add_options(parser)
    reports = (ROOT / "reports" / "__main__.py").read_text()
    seen = 0
    for line in commands(template):
        words = [word for word in shlex.split(line.partition("|")[0]) if word.startswith("--")]
        if ".venv/bin/pytest" in line:
            mine = [word.replace("$SEED", "7") for word in words if not word.startswith("--junitxml=")]
            assert parser.parse_known_and_unknown_args(mine)[1] == []
            seen += 1
        if "-m reports" in line:
            assert all(f'"{word.partition("=")[0]}"' in reports for word in words)
            seen += 1

    assert seen >= 2


@pytest.mark.parametrize("template", TEMPLATES, ids=name)
def test_the_seed_is_random_and_printed(template, tmp_path):
    """Without one given it is drawn; given, it is kept; either way the log says it."""
    shown = [line for line in commands(template) if line.startswith(("SEED=", "echo "))]
    script = "\n".join(line for line in shown if "GITHUB_ENV" not in line)

    def told(**given):
        env = {"PATH": "/usr/bin:/bin", **given}
        result = subprocess.run(
            ["/bin/sh", "-ec", script], capture_output=True, text=True, check=True, env=env, cwd=tmp_path
        )
        return re.search(r"the drill's seed is (\d+):", result.stdout)[1]

    variable = "ASKED" if template is GITHUB else "SEED"
    assert told(**{variable: "7"}) == "7"
    assert len({told(**{variable: ""}) for _ in range(5)}) > 1


@pytest.mark.parametrize("template", TEMPLATES, ids=name)
def test_only_the_report_is_handed_out(template, tmp_path):
    """The script that gathers it, run on a run's folder with everything in it, takes three files."""
    gather = next(script for script in scripts(template) if "drill-report" in script and "cp " in script)
    run = tmp_path / "reports" / "runs" / "20260101T000000Z-ab12"
    for inside in (*HANDED_OUT, "journal.jsonl", *(f"{folder}/rows.csv" for folder in ROWS)):
        (run / inside).parent.mkdir(parents=True, exist_ok=True)
        (run / inside).write_text("x")
    (run.parent / "latest").symlink_to(run.name)

    subprocess.run(["/bin/sh", "-ec", gather], check=True, cwd=tmp_path)

    assert {path.name for path in (tmp_path / "drill-report").rglob("*")} == HANDED_OUT


@pytest.mark.parametrize("template", TEMPLATES, ids=name)
def test_gathering_survives_a_drill_that_left_no_report(template, tmp_path):
    """A refused drill has none, and the job's own code stays the one that counts."""
    gather = next(script for script in scripts(template) if "drill-report" in script and "cp " in script)

    assert subprocess.run(["/bin/sh", "-ec", gather], check=False, cwd=tmp_path).returncode == 0


def test_what_is_kept_is_the_gathered_report():
    """Artefact lists name no folder of a run."""
    steps = loaded(GITHUB)["jobs"]["drill"]["steps"]
    upload = next(
        step["with"]["path"] for step in steps if str(step.get("uses")).startswith("actions/upload-artifact")
    )
    kept = {
        "github": upload.split(),
        "gitlab": loaded(GITLAB)["restore-drill"]["artifacts"]["paths"],
        "jenkins": re.search(r"archiveArtifacts artifacts: '([^']+)'", JENKINS.read_text())[1].split(", "),
    }

    assert kept == {
        "github": ["drill-report/", "reports/drill.xml"],
        "gitlab": ["drill-report/"],
        "jenkins": ["drill-report/**", "reports/history.jsonl"],
    }


@pytest.mark.parametrize("template", TEMPLATES, ids=name)
def test_history_is_kept_between_runs(template):
    """The one file that trend and age are read from."""
    text = template.read_text()

    assert "reports/history.jsonl" in text
    assert not re.search(r"rm [^\n]*reports(/history\.jsonl)?['\s]*$", text, re.MULTILINE)


@pytest.mark.parametrize("template", TEMPLATES, ids=name)
def test_every_exit_code_is_explained(template):
    """In the first lines, for whoever finds a red job."""
    codes = re.findall(r"^(?:#|//)   (\d+) +\S.*", template.read_text(), re.MULTILINE)

    assert [int(code) for code in codes] == [int(code) for code in ExitCode]


@pytest.mark.parametrize("template", TEMPLATES, ids=name)
def test_it_runs_every_night_by_itself(template):
    """By a schedule of the file's own; GitLab's stands outside and is asked for."""
    text = template.read_text()

    assert re.search(
        r"cron: \"\d+ \d+ \* \* \*\"|cron\('H \d+ \* \* \*'\)|CI_PIPELINE_SOURCE == \"schedule\"", text
    )
