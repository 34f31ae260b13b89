"""The generated pages are what the code generates, and their examples load."""

import re
import tomllib

import jsonschema
import pytest

from fixtures.config import load_config
from fixtures.errors import CATALOGUE, ExitCode
from fixtures.settings import Settings
from reports import docs
from reports.summary import schema_text


@pytest.mark.parametrize(
    ("path", "text"), list(docs.generated()), ids=lambda value: getattr(value, "name", "")
)
def test_the_committed_page_is_current(path, text):
    """`make docs` would change nothing."""
    assert path.read_text(encoding="utf-8") == text, "run: make docs"


def test_the_complete_example_loads():
    """The example on the page is a configuration this version accepts."""
    settings = load_config(docs.EXAMPLE).settings

    assert settings.production.name == "stampcard"
    assert settings.drill is None


def test_every_table_has_heading_keys_and_example():
    """No table of the settings is without its section, and no key without its help."""
    page = docs.configuration_page()
    sections = {part.partition("`")[0].strip("[]"): part for part in page.split("\n## `")[1:]}
    names = {name: model for name, model, _ in docs._tables(Settings, "") if name}

    assert sections.keys() == names.keys()
    for name, model in names.items():
        assert "```toml" in sections[name], name
        for key, field in model.model_fields.items():
            assert field.description or docs._section(field.annotation), f"{name}.{key}"
            assert docs._section(field.annotation) or f"| `{key}` |" in sections[name], f"{name}.{key}"


def test_every_toml_block_parses():
    """Each block of the page is TOML."""
    blocks = re.findall(r"```toml\n(.*?)```", docs.configuration_page(), re.DOTALL)

    assert len(blocks) > 20
    assert all(tomllib.loads(block) for block in blocks)


def test_every_error_and_exit_code_is_listed():
    """Nothing a person can meet is missing on the page."""
    page = docs.errors_page()

    assert [code for code in CATALOGUE if f"| {code} |" not in page] == []
    assert [int(code) for code in ExitCode if f"| {int(code)} |" not in page] == []


def test_the_schema_is_a_schema():
    """docs/summary.schema.json is valid JSON Schema."""
    import json

    jsonschema.Draft202012Validator.check_schema(json.loads(schema_text()))
