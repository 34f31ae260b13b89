"""The recipes for managed services: every script compiles, every configuration loads, answers fit the contract offline."""

import py_compile
import re
import shutil
import stat
import sys
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fixtures.command import run
from fixtures.errors import ProviderError
from fixtures.providers.base import Cluster, Site, Target, TargetKind
from fixtures.providers.command.backend import TeamCommand
from fixtures.settings import CommandProvider, Settings

PAGE = Path(__file__).parents[2] / "docs" / "providers" / "recipes.md"
BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"^# (?P<name>[\w-]+\.(?:py|sh)): ", re.MULTILINE)
AT = datetime(2026, 11, 28, 4, 0, 0, 250_000, tzinfo=UTC)
#: secrets of the recipes, as nobody has them
SECRETS = {
    "CRUNCHY_API_KEY": "simulated-crunchy-key", "AIVEN_TOKEN": "simulated-aiven-token",
    "SUPABASE_ACCESS_TOKEN": "simulated-supabase-token",
}  # fmt: skip
RECIPES = ("cnpg", "cloudsql", "azure", "crunchy", "aiven", "supabase")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One recipe as a person would install it."""

    name: str
    provider: TeamCommand


def scripts() -> dict[str, str]:
    """File name -> text."""
    found = {}
    for block in BLOCK.finditer(PAGE.read_text()):
        named = NAMED.search(block["body"])
        if block["kind"] in {"python", "sh"} and named:
            found[named["name"]] = block["body"]
    return found


def configurations() -> list[dict]:
    """Every configuration of the page."""
    return [
        tomllib.loads(found["body"]) for found in BLOCK.finditer(PAGE.read_text()) if found["kind"] == "toml"
    ]


@pytest.fixture
def recipe(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe installed in a folder, with a PATH that holds no tool of a service."""
    name = request.param
    for file, text in scripts().items():
        path = tmp_path / file
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "python3").symlink_to(sys.executable)
    for needed in ("env", "sh", "mv", "setpriv"):
        found = shutil.which(needed)
        if found is not None:
            (tools / needed).symlink_to(found)
    monkeypatch.setenv("PATH", str(tools))
    # a proxy that is not there: no test of ours asks a service
    for variable in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9/recipes-go-nowhere")
    own = next(
        each["provider"]["command"]
        for each in configurations()
        if "command" in each["provider"] and each["provider"]["command"]["argv"][0].endswith(f"/{name}.py")
    )
    for variable in own["env"]:
        if variable in SECRETS:
            monkeypatch.setenv(variable, SECRETS[variable])
    settings = CommandProvider.model_validate(
        {**own, "argv": [str(tmp_path / f"{name}.py"), *own["argv"][1:]], "env": [*own["env"], "https_proxy"]}
    )
    (tmp_path / "logs").mkdir()
    site = Site(
        run_id="20261128T040000Z-ab12", directory=tmp_path, host="127.0.0.1", port=50432, sockets=tmp_path,
        logs=tmp_path / "logs", binaries=None, cluster=Cluster(), timeout_s=5,
    )  # fmt: skip
    return Recipe(name=name, provider=TeamCommand(settings, site))


def test_the_page_says_that_nothing_of_it_was_executed() -> None:
    """On top, and in every script of a service."""
    text = PAGE.read_text()

    assert "**NEVER EXECUTED.**" in text.split("## ")[0]
    assert set(scripts()) == {"managed.py", "crunchy-pgbackrest.sh", *(f"{name}.py" for name in RECIPES)}
    assert [name for name, body in scripts().items() if "NEVER EXECUTED" not in body] == ["managed.py"]


def test_every_script_compiles(tmp_path: Path) -> None:
    """Python by its compiler, shell by its own."""
    for name, text in scripts().items():
        path = tmp_path / name
        path.write_text(text)
        if name.endswith(".py"):
            py_compile.compile(str(path), cfile=str(tmp_path / "out.pyc"), doraise=True)
        else:
            assert run(["sh", "-n", path], timeout_s=20).returncode == 0


def test_every_configuration_names_a_script_of_the_page_and_no_secret() -> None:
    """Keys are the settings' own; what a script needs of the environment is named."""
    for tree in configurations():
        name, tables = tree["provider"]["name"], tree["provider"]
        model = Settings.model_fields["provider"].annotation
        assert model is not None
        assert getattr(model.model_validate(tables), name) is not None
        if name == "command":
            file = Path(tables["command"]["argv"][0]).name
            needed = set(re.findall(r'need\("(\w+)"\)|need\(\'(\w+)\'\)', scripts()[file]))
            given = {word.partition("=")[0] for word in tables["command"]["argv"][1:]}
            assert {first or second for first, second in needed} <= {*given, *tables["command"]["env"]}
            assert given.isdisjoint(SECRETS)


@pytest.mark.parametrize("recipe", RECIPES, indirect=True)
def test_capabilities_are_told_offline(recipe: Recipe) -> None:
    """No service is asked; the answer fits the contract."""
    able = recipe.provider.capabilities()

    assert TargetKind.TIME in able.targets
    assert not able.pauses
    assert not able.local_files


@pytest.mark.parametrize("recipe", RECIPES, indirect=True)
def test_a_plan_names_the_same_copy_every_time(recipe: Recipe) -> None:
    """Its name holds the run's id; the address is this machine's; whole seconds, never later."""
    target = Target(kind=TargetKind.TIME, value=AT.isoformat(), at=AT)
    plan = recipe.provider.plan(target)

    assert plan.instance == recipe.provider.plan(target).instance
    assert plan.instance.name.endswith("-20261128t040000z-ab12")
    assert (plan.instance.host, plan.instance.port) == ("127.0.0.1", 50432)
    assert "never executed" in plan.commands[0]
    assert "2026-11-28T04:00:00Z" in " ".join(plan.commands)
    whole = AT.replace(microsecond=0)
    exclusive = Target(kind=TargetKind.TIME, value=whole.isoformat(), at=whole, exclusive=True)
    earlier = (whole - timedelta(seconds=1)).isoformat().replace("+00:00", "Z")
    assert earlier in " ".join(recipe.provider.plan(exclusive).commands)
    assert not any(secret in " ".join(plan.commands) for secret in SECRETS.values())


@pytest.mark.parametrize("recipe", RECIPES, indirect=True)
def test_what_cannot_be_asked_is_a_proper_refusal(recipe: Recipe) -> None:
    """A tool that is missing, or a service that does not answer: one sentence with a code, no stack."""
    with pytest.raises(ProviderError) as error:
        recipe.provider.window()

    assert error.value.code in {"RB109", "RB309"}


@pytest.mark.parametrize("recipe", ["supabase"], indirect=True)
def test_supabase_is_not_restored_over_production(recipe: Recipe) -> None:
    """Its restore is in place: refused, with the call a person would make."""
    target = Target(kind=TargetKind.TIME, value=AT.isoformat(), at=AT)

    with pytest.raises(ProviderError) as error:
        recipe.provider.start(recipe.provider.plan(target), lambda _: None)

    assert error.value.code == "RB108"
    assert any("restore-pitr" in hint for hint in error.value.hints)


@pytest.mark.parametrize("recipe", ["aiven"], indirect=True)
def test_a_missing_secret_is_named(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is asked."""
    monkeypatch.delenv("AIVEN_TOKEN")

    with pytest.raises(ProviderError) as error:
        recipe.provider.window()

    assert error.value.code == "RB106"
    assert "AIVEN_TOKEN" in error.value.fact
