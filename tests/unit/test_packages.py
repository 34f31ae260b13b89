"""What to install for a program that is missing: the package's name, which is often another one."""

import ast
from pathlib import Path

import pytest

from fixtures.command import find_tool
from fixtures.errors import ToolError
from fixtures.packages import PACKAGES, install
from fixtures.providers.barman.unpack import PROGRAM_OF
from fixtures.providers.basebackup.tar import ARCHIVES

FIXTURES = Path(__file__).parents[2] / "fixtures"


def looked_for() -> set[str]:
    """Every program that is looked for by its name, or unpacks something."""
    named = {
        node.args[0].value
        for path in FIXTURES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "find_tool"
        and isinstance(node.args[0], ast.Constant)
    }
    return {*named, *PROGRAM_OF.values(), *ARCHIVES.values()} - {""}


def test_every_program_that_is_looked_for_has_its_package():
    """A program's own name is none."""
    assert {"pgbackrest", "xz", "setpriv", "barman-cloud-backup"} <= looked_for()
    assert [name for name in sorted(looked_for()) if "package that has" in install(name)] == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("setpriv", "apt-get install util-linux"),
        ("barman-cloud-backup", "apt-get install barman-cli-cloud"),
        ("wal-g", "[provider.walg] program"),
        ("pg_verifybackup", "[postgres] bin_dir"),
        ("nobodys", "the package that has the program nobodys"),
    ],
)
def test_a_program_that_is_not_there_is_refused_with_what_to_do(monkeypatch, tmp_path, name, words):
    """From PATH; in a folder of the server's programs it is the folder that is wrong."""
    monkeypatch.setenv("PATH", str(tmp_path))

    for folder, hint in ((None, words), (tmp_path, "[postgres] bin_dir")):
        with pytest.raises(ToolError) as error:
            find_tool(name, bin_dir=folder)
        assert error.value.code == "RB109"
        assert hint in error.value.hints[0]


def test_no_program_is_in_two_packages():
    """The first one would win."""
    names = [name for programs in PACKAGES.values() for name in programs]

    assert len(names) == len(set(names))
