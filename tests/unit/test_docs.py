"""The documentation against the code: every configuration block, command, option, link and table."""

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from fixtures.adoption.__main__ import parser as adoption_parser
from fixtures.config import load_config, secret_from_environment
from fixtures.drill.disasters import CATALOGUE as DISASTERS
from fixtures.errors import CATALOGUE, ExitCode
from fixtures.options import add_options
from fixtures.outcome import MEANING
from fixtures.providers import REGISTRY
from fixtures.settings import Settings
from reports.docs import generated

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(?P<kind>\w*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
#: options of pytest itself, of make, and of the other programs the pages call
FOREIGN = {
    "--collect-only", "--color", "--confcutdir", "--deselect", "--junitxml", "--last-failed", "--maxfail", "--pdb",
    "--runxfail", "--setup-only", "--stepwise", "--trace",
}  # fmt: skip
#: what our other programs take; asked of themselves below
OTHERS = {
    "reports": {
        "--verify",
        "--history",
        "--key",
        "--signers",
        "--signer",
        "--runs",
        "--trend",
        "--max-age",
        "--kind",
    },
    "init": {option for action in adoption_parser()._actions for option in action.option_strings},
}


def shown(path):
    """Return a page's name for a test's id."""
    return str(path.relative_to(ROOT))


def blocks(kinds, pages=PAGES):
    """Return fenced blocks as (page, text)."""
    return [
        pytest.param(
            page, found["body"], id=f"{shown(page)}:{page.read_text()[: found.start()].count(chr(10)) + 1}"
        )
        for page in pages
        for found in BLOCK.finditer(page.read_text())
        if found["kind"] in kinds
    ]


def options():
    """Return the runbook's options, as they are registered."""
    parser = pytest.Parser(_ispytest=True)
    add_options(parser)
    return {name for group in parser._groups for option in group.options for name in option.names()}


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the settings model inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := model_in(each))), None)


def unknown_keys(tree, model, path=""):
    """Return keys of a TOML tree that the models do not have."""
    found = []
    for key, value in tree.items():
        field = model.model_fields.get(key)
        if field is None:
            found.append(f"{path}{key}")
            continue
        inner = model_in(field.annotation)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict) and inner is not None:
                found += unknown_keys(each, inner, f"{path}{key}.")
    return found


# -- configuration -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "text"), blocks({"toml"}))
def test_every_key_of_a_configuration_block_exists(page, text):
    """No page shows a key the code does not read."""
    assert unknown_keys(tomllib.loads(text), Settings) == [], shown(page)


@pytest.mark.parametrize(("page", "text"), blocks({"toml"}))
def test_every_value_of_a_configuration_block_is_accepted(page, text):
    """A fragment lacks keys of the whole, and has nothing else wrong."""
    wrong = []
    try:
        Settings.model_validate(whole(tomllib.loads(text), Settings))
    except ValidationError as error:
        wrong = [item["msg"] for item in error.errors() if item["type"] not in {"missing", "too_short"}]

    assert wrong == [], shown(page)


def whole(tree, model):
    """Return a fragment's tree with the lists that a heading such as [databases.heartbeat] leaves out."""
    found = {}
    for key, value in tree.items():
        annotation = model.model_fields[key].annotation
        inner = model_in(annotation)
        if inner is None:
            found[key] = value
        elif get_origin(annotation) is tuple:
            found[key] = [whole(one, inner) for one in (value if isinstance(value, list) else [value])]
        else:
            found[key] = whole(value, inner)
    return found


def test_complete_configurations_load(tmp_path, monkeypatch):
    """The two complete examples load, and find their password by the name they give."""
    complete = [ROOT / "docs" / "configuration.md", ROOT / "docs" / "how-to" / "incident.md"]
    for page in complete:
        file = tmp_path / "production.toml"
        file.write_text(
            next(found["body"] for found in BLOCK.finditer(page.read_text()) if found["kind"] == "toml")
        )

        settings = load_config(file).settings

        monkeypatch.setenv(settings.production.password_env, "one-for-the-test")
        assert str(secret_from_environment(settings.production.password_env)) != "one-for-the-test"
        assert settings.drill is None


@pytest.mark.parametrize(("page", "text"), blocks({"json"}))
def test_json_blocks_are_json(page, text):
    """A JSON block parses, line by line where it is a stream."""
    try:
        json.loads(text)
    except ValueError:
        assert [json.loads(line) for line in text.splitlines()] != [], shown(page)


# -- commands ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_make_target_named_exists(page):
    """A page names no target that `make help` does not list."""
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE))

    assert named - targets == set()


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_option_named_exists(page):
    """A page names no option the runbook does not have."""
    text = "\n".join(
        line for line in page.read_text().splitlines() if re.search(r"pytest|^\| `--|^`?--", line)
    )
    named = set(OPTION.findall(text))

    assert named - options() - FOREIGN - OTHERS["reports"] - OTHERS["init"] == set()


def test_every_flag_of_init_is_documented():
    """The page of `make init` has a row for each flag, and no other."""
    text = (ROOT / "docs" / "how-to" / "first-configuration.md").read_text()
    rows = set(re.findall(r"^\| `(--[a-z0-9-]+)", text, re.MULTILINE))

    assert rows == OTHERS["init"] - {"-h", "--help"}


def test_every_option_of_the_reports_program_exists():
    """The reference's reports options are the program's own."""
    text = (ROOT / "reports" / "__main__.py").read_text()

    assert {name for name in OTHERS["reports"] if f'"{name}"' not in text} == set()


@pytest.mark.parametrize(("page", "text"), blocks({"sh", "bash", ""}))
def test_every_pytest_command_shown_can_be_parsed(page, text):
    """A command to copy is one the parser takes."""
    parser = pytest.Parser(_ispytest=True)
    add_options(parser)
    for line in text.splitlines():
        words = shlex.split(line, comments=True) if "pytest --" in line and not line.startswith("==") else []
        mine = [word for word in words if word.startswith("--") and word.partition("=")[0] not in FOREIGN]
        mine = [re.sub(r"\$\w+", "1", word) for word in mine]  # a shell variable, whatever it holds
        parsed = parser.parse_known_and_unknown_args(mine) if mine else (None, [])

        assert parsed[1] == [], shown(page)


def test_every_option_is_documented():
    """The command-line reference has a row for each option the code registers, and no other."""
    text = (ROOT / "docs" / "command-line.md").read_text()
    rows = set(re.findall(r"^\| `(--[a-z0-9-]+)", text, re.MULTILINE))

    assert rows == options()


# -- tables ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "exit-codes.md"], ids=shown)
def test_exit_codes_are_all_there(page):
    """Every exit code stands in the table, in the code's own words."""
    rows = dict(re.findall(r"^\| (\d+) \| ([^|]+?) (?=\|)", page.read_text(), re.MULTILINE))

    assert {int(code) for code in rows} == {int(code) for code in ExitCode}
    assert {
        code: text
        for code, text in rows.items()
        if MEANING[ExitCode(int(code))] not in text.replace("**", "")
    } == {}


def test_every_disaster_is_described():
    """The drill's page lists the catalogue, in the catalogue's words."""
    rows = dict(
        re.findall(
            r"^\| `([\w-]+)` \| (.+) \|$", (ROOT / "docs" / "how-to" / "drill.md").read_text(), re.MULTILINE
        )
    )

    assert rows == {name: disaster.sentence for name, disaster in DISASTERS.items()}


def test_every_provider_has_its_heading():
    """The registry's names are the headings of the providers' page."""
    headings = re.findall(r"^## (\S+)$", (ROOT / "docs" / "providers.md").read_text(), re.MULTILINE)

    assert sorted(headings) == sorted(REGISTRY)


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_error_code_named_exists(page):
    """A page names no code that is not in the catalogue."""
    assert set(re.findall(r"\bRB\d{3}\b", page.read_text())) - set(CATALOGUE) == set()


@pytest.mark.parametrize(("path", "text"), [pytest.param(*page, id=page[0].name) for page in generated()])
def test_generated_pages_are_fresh(path, text):
    """`make docs` would change nothing."""
    assert path.read_text(encoding="utf-8") == text


# -- links and words ---------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_link_leads_somewhere(page):
    """Files exist, and so do the headings linked to."""
    broken = []
    for found in LINK.finditer(re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        target, _, heading = found["target"].partition("#")
        if target.startswith(("http://", "https://")):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (heading and heading not in anchors(file)):
            broken.append(found["target"])

    assert broken == []


def anchors(page):
    """Return the anchors of a page's headings."""
    lines = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def test_every_page_is_reached_from_the_index():
    """No page is written that nobody finds."""
    index = (ROOT / "docs" / "index.md").read_text()
    pages = {shown(page).removeprefix("docs/") for page in PAGES if page.parent != ROOT} - {"index.md"}

    assert {page for page in pages if f"]({page})" not in index} == set()


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_no_page_tells_where_it_was_written(page):
    """Addresses of the machine it was written on are nobody's business."""
    assert re.findall(rf"{re.escape(str(ROOT))}/|/root/|/tmp/(?!`| )[a-z]", page.read_text()) == []
