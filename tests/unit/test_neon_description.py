"""The vendor's API description, as the simulator of Neon reads it."""

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures.drill.neon_simulator.description import BESIDE, Description, find_description
from fixtures.drill.neon_simulator.service import CALLS
from fixtures.errors import ToolError
from tests.missing import NEEDS, missing

RECORDED = BESIDE.with_name("recorded-responses-2024.json")
#: a description small enough to be read here; the vendor's own is fetched, never committed
SMALL: dict[str, Any] = {
    "paths": {
        "/things/{thing_id}": {
            "parameters": [
                {"name": "thing_id", "in": "path", "required": True, "schema": {"$ref": "#/components/schemas/Id"}}
            ],
            "patch": {
                "operationId": "changeThing",
                "parameters": [{"name": "deep", "in": "query", "schema": {"type": "boolean"}}],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Change"}}},
                },
                "responses": {
                    "200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Change"}}}},
                    "204": {},
                },
            },
        }
    },
    "components": {
        "schemas": {
            "Id": {"type": "string", "pattern": "^[a-z]+$"},
            "Change": {
                "type": "object",
                "required": ["at"],
                "properties": {
                    "at": {"type": "string", "format": "date-time", "nullable": True},
                    "size": {"type": "integer", "format": "int32"},
                },
            },
        }
    },
}  # fmt: skip


@pytest.fixture
def vendors() -> Description:
    """The vendor's own description, where it was fetched."""
    try:
        return find_description()
    except ToolError:
        missing("the API description of Neon (make neon-api)")


@pytest.mark.parametrize(
    ("query", "body", "expected"),
    [
        pytest.param({}, {"at": "2026-01-01T00:00:00Z"}, [], id="right"),
        pytest.param({}, {"at": None}, [], id="nullable"),
        pytest.param({"deep": "true"}, {"at": None, "size": 7}, [], id="typed-query"),
        pytest.param({"deep": "yes"}, {"at": None}, ["query parameter deep"], id="wrong-query"),
        pytest.param({"other": "1"}, {"at": None}, ["query parameter other"], id="unknown-query"),
        pytest.param({}, {"at": "2026-01-01 noon"}, ["at: "], id="no-date-time"),
        pytest.param({}, {"at": "2026-01-01T00:00:00"}, ["at: "], id="without-offset"),
        pytest.param({}, {"at": None, "size": 2**31}, ["size: "], id="no-int32"),
        pytest.param({}, {}, ["body: "], id="missing"),
        pytest.param({}, {"at": None, "seize": 1}, ["seize is not"], id="unknown-field"),
        pytest.param({}, None, ["request body is required"], id="no-body"),
    ],
)
def test_requests_are_held_to_a_description(query: dict[str, str], body: object, expected: list[str]) -> None:
    """What the description does not allow, or does not name, is a fault of the request."""
    small = Description(SMALL, source="small")
    asked = small.find("PATCH", "/things/abc")

    assert asked is not None
    found = small.request_faults(asked, query, body)
    assert [each[: len(start)] for each, start in zip(found, expected, strict=True)] == expected


def test_answers_are_held_to_a_description() -> None:
    """A wrong body, a body where none belongs and an unknown status are faults of the answer."""
    small = Description(SMALL, source="small")
    asked = small.find("PATCH", "/things/abc")
    assert asked is not None

    assert small.answer_faults(asked.call, 200, {"at": None}) == []
    assert small.answer_faults(asked.call, 204, None) == []
    assert small.answer_faults(asked.call, 200, {"size": 1}) != []
    assert small.answer_faults(asked.call, 204, {"at": None}) != []
    assert small.answer_faults(asked.call, 201, {"at": None}) != []
    assert small.find("PATCH", "/others/abc") is None


def test_an_absent_description_says_how_to_get_it(tmp_path: Path) -> None:
    """The drill of Neon names the next command."""
    with pytest.raises(ToolError) as caught:
        find_description(tmp_path / "none.json")

    assert caught.value.code == "RB109"
    assert "make neon-api" in caught.value.block()


def test_every_simulated_call_is_the_vendors(vendors: Description) -> None:
    """The simulator answers to no name the description does not have."""
    assert set(CALLS) - {call.name for call in vendors.calls} == set()


def test_recorded_responses_keep_to_the_description(vendors: Description) -> None:
    """What Neon really answered validates, so that validating our own answers says something."""
    if not RECORDED.is_file():
        # no tool brings them: they lie beside a checkout, or they do not
        pytest.skip(f"{NEEDS}responses recorded from Neon in {RECORDED}")
    exchanges = json.loads(RECORDED.read_text(encoding="utf-8"))["exchanges"]

    found = [
        fault
        for each in exchanges
        for fault in vendors.answer_faults(
            vendors.by_template(each["method"], each["path"]), each["status"], each["body"]
        )
    ]

    assert len(exchanges) > 10
    assert found == []
