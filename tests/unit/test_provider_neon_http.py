"""Requests to Neon's API: what is repeated, how long is waited, what a refusal becomes, what stays secret."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from fixtures.errors import ProviderError
from fixtures.evidence import Secret
from fixtures.providers.neon import http as neon_http
from fixtures.providers.neon import operations as neon_operations
from fixtures.providers.neon.api import Api
from fixtures.providers.neon.http import SILENT, AbsentError, Bounds, Http, UnfitError
from fixtures.providers.neon.models import Operation, OperationsAnswer, ProjectAnswer, UriAnswer
from fixtures.providers.neon.operations import Operations

KEY = "napi_the-key-itself"
DONE = OperationsAnswer()
PROJECT = {
    "project": {
        "id": "p", "name": "n", "pg_version": 18, "history_retention_seconds": 3600,
        "store_passwords": True, "created_at": "2026-01-01T00:00:00Z",
    }
}  # fmt: skip
Script = list[httpx.Response | Exception]


@pytest.fixture(autouse=True)
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that would have been waited."""
    seconds: list[float] = []
    monkeypatch.setattr(neon_http, "pause", seconds.append)
    return seconds


def client(script: Script, seen: list[httpx.Request] | None = None, **bounds: Any) -> Http:
    """An API that answers in a fixed order."""
    left = list(script)

    def answer(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        following = left.pop(0)
        if isinstance(following, Exception):
            raise following
        return following

    SILENT.clear()
    return Http(
        "https://neon.invalid/api/v2/", lambda: Secret(KEY), "run-1", bounds=Bounds(**bounds),
        transport=httpx.MockTransport(answer),
    )  # fmt: skip


def refused(status: int, message: str = "no", *, code: str = "", **headers: str) -> httpx.Response:
    """A refusal in the vendor's form."""
    return httpx.Response(status, json={"code": code, "message": message}, headers=headers)


def nothing() -> None:
    """See no effect."""


def test_a_request_carries_key_and_run(waited):
    """The key goes in the header alone, the run's id where the vendor's support can find it."""
    seen: list[httpx.Request] = []

    answer = client([httpx.Response(200, json=PROJECT)], seen).look("/projects/p", ProjectAnswer)

    assert answer.project.history_retention_seconds == 3600
    assert str(seen[0].url) == "https://neon.invalid/api/v2/projects/p"
    assert seen[0].headers["Authorization"] == f"Bearer {KEY}"
    assert seen[0].headers["X-Request-ID"] == "run-1"
    assert waited == []


@pytest.mark.parametrize("status", [423, 429, 503, 500, 502, 524])
def test_a_look_is_repeated(waited, status):
    """Asking again changes nothing."""
    own = client([refused(status), httpx.Response(200, json=PROJECT)])

    assert own.look("/projects/p", ProjectAnswer).project.id == "p"
    assert len(waited) == 1


def test_waiting_doubles_and_retry_after_is_a_minimum(waited):
    """The vendor's wish is kept, ours when it is longer."""
    script: Script = [
        refused(429, **{"Retry-After": "7"}),
        refused(423),
        refused(429, **{"Retry-After": "1"}),
    ]

    client([*script, httpx.Response(200, json=PROJECT)]).look("/projects/p", ProjectAnswer)

    assert waited == [7.0, 1.0, 2.0]


def test_retry_after_may_be_a_date(waited):
    """A date in the past waits no longer than usual; one that is none neither."""
    script: Script = [
        refused(503, **{"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        refused(503, **{"Retry-After": "soon"}),
    ]

    client([*script, httpx.Response(200, json=PROJECT)]).look("/projects/p", ProjectAnswer)

    assert waited == [0.5, 1.0]


@pytest.mark.parametrize("status", [423, 429, 503])
def test_a_change_that_was_not_begun_is_sent_again(status):
    """The answer says so; nobody looks for an effect."""
    own = client([refused(status), httpx.Response(200, json={"operations": []})])

    def must_not_look() -> None:
        raise AssertionError

    assert own.change("POST", "/x", OperationsAnswer, done=must_not_look) == DONE


@pytest.mark.parametrize(
    "lost",
    [
        refused(524), refused(500), refused(504), httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("Server disconnected without sending a response."), httpx.WriteError("broken"),
    ],
    ids=lambda each: type(each).__name__ + str(getattr(each, "status_code", "")),
)  # fmt: skip
def test_a_change_whose_answer_was_lost_is_looked_for_first(lost):
    """It may have been carried out: sending it twice would make two."""
    seen: list[httpx.Request] = []
    own = client([lost], seen)

    assert own.change("POST", "/x", OperationsAnswer, done=lambda: DONE) is DONE
    assert len(seen) == 1


def test_an_effect_may_show_late_and_is_then_not_made_twice():
    """Several looks, then the next try."""
    looks: list[None] = []
    seen: list[httpx.Request] = []

    def third_time() -> OperationsAnswer | None:
        looks.append(None)
        return DONE if len(looks) == 3 else None

    assert client([refused(524)], seen).change("POST", "/x", OperationsAnswer, done=third_time) is DONE
    assert len(seen) == 1


def test_a_change_that_left_no_effect_is_sent_again_and_given_up_at_last():
    """A lost request is not a lost cause, and not an endless one."""
    seen: list[httpx.Request] = []
    own = client([refused(524), httpx.Response(200, json={"operations": []})], seen)
    assert own.change("POST", "/x", OperationsAnswer, done=nothing) == DONE
    assert len(seen) == 2

    with pytest.raises(ProviderError) as error:
        client([refused(524)] * 3).change("DELETE", "/x", OperationsAnswer, done=nothing)
    assert error.value.code == "RB309"


def test_a_request_that_was_never_sent_is_sent_again():
    """No connection, no effect."""
    own = client([httpx.ConnectError("refused"), httpx.Response(200, json={"operations": []})])

    def must_not_look() -> None:
        raise AssertionError

    assert own.change("POST", "/x", OperationsAnswer, done=must_not_look) == DONE


def test_patience_ends():
    """A bound, named in the vendor's words; shorter where nothing answers at all."""
    with pytest.raises(ProviderError) as locked:
        client([refused(423, "project already has running conflicting operations")] * 3, patience_s=0.0).look(
            "/x", ProjectAnswer
        )
    with pytest.raises(ProviderError) as silent:
        client([httpx.ConnectError("refused")] * 3, unreachable_s=0.0).look("/x", ProjectAnswer)

    assert "conflicting operations" in locked.value.fact
    assert "--resume" in locked.value.hints[0]
    assert "did not answer" in silent.value.fact


def test_an_address_that_was_silent_is_tried_once_more_and_not_for_as_long_again(waited):
    """A plan asks several times: a wrong address must not take five times the bound."""
    seen: list[httpx.Request] = []
    own = client([httpx.ConnectError("refused")] * 9, seen, unreachable_s=1.0)
    tries = []
    for _ in range(2):
        with pytest.raises(ProviderError):
            own.look("/x", ProjectAnswer)
        tries.append(len(seen))
    assert tries[0] > 1
    assert tries[1] == tries[0] + 1

    assert client([httpx.Response(200, json=PROJECT)]).look("/x", ProjectAnswer)
    assert waited
    assert not SILENT


@pytest.mark.parametrize(
    ("response", "code", "words"),
    [
        (refused(401, "bad key"), "RB309", "API key"),
        (refused(403, "not yours"), "RB309", "may not do this"),
        (refused(422, "limit", code="BRANCHES_LIMIT_EXCEEDED"), "RB308", "limit"),
        (refused(422, "limit", code="ROOT_BRANCHES_LIMIT_EXCEEDED"), "RB308", "limit"),
        (refused(422, "a protected branch cannot be deleted"), "RB309", "protected"),
        (httpx.Response(400, text="<html>"), "RB309", "refused"),
    ],
    ids=["401", "403", "limit", "root-limit", "422", "no-json"],
)
def test_a_refusal_says_what_and_where(response, code, words):
    """Never repeated; method, path and status are told."""
    with pytest.raises(ProviderError) as error:
        client([response]).change("POST", "/projects/p/branches", OperationsAnswer, done=nothing)

    assert error.value.code == code
    assert words in error.value.fact
    assert f"POST /projects/p/branches: HTTP {response.status_code}" in error.value.where


def test_what_is_not_there_is_told_apart():
    """404, and 204 where a body was expected."""
    for response in (refused(404), httpx.Response(204)):
        with pytest.raises(AbsentError):
            client([response]).look("/projects/p", ProjectAnswer)


def test_no_secret_is_in_an_error():
    """Neither the key, nor a value of an answer that cannot be read, nor a password a refusal repeats."""
    own: list[Callable[[], object]] = [
        lambda: client([refused(403, f"key {KEY} is not allowed")]).look("/x", ProjectAnswer),
        lambda: client([refused(422, "postgresql://u:hidden-word@h/db is taken")]).look("/x", ProjectAnswer),
        lambda: client([httpx.Response(200, json={"url": "postgresql://u:hidden-word@h/db"})]).look(
            "/x", UriAnswer
        ),
    ]
    for ask in own:
        with pytest.raises(ProviderError) as error:
            ask()
        assert KEY not in error.value.block()
        assert "hidden-word" not in error.value.block()


@pytest.mark.parametrize("ended", ["finished", "skipped", "failed", "error", "cancelled"])
def test_an_operation_is_waited_for_to_its_last_state(ended, monkeypatch):
    """Two of them are good; what the vendor says of the others is told, with the number its support asks for."""
    monkeypatch.setattr(neon_operations, "POLL_S", 0.0)
    running = {"id": "op-1", "action": "create_branch", "created_at": "2026-01-01T00:00:00Z"}
    over = {**running, "status": ended, "error": "out of luck"}
    cancelling = {**running, "status": "cancelling"}
    script = [httpx.Response(200, json={"operation": each}) for each in (cancelling, over)]
    operations = Operations(client(script), "/projects/p", timeout_s=10)
    begun = [Operation.model_validate({**running, "status": "scheduling"})]

    if ended in {"finished", "skipped"}:
        operations.wait(begun, len)
        return
    with pytest.raises(ProviderError) as error:
        operations.wait(begun, len)

    assert error.value.code == "RB310"
    assert f"create_branch is {ended}: out of luck" in error.value.fact
    assert "op-1" in error.value.where


@pytest.mark.parametrize("taken", [True, False], ids=["done meanwhile", "refused"])
def test_a_finalized_restore_whose_answer_was_lost_is_told_from_a_refused_one(taken):
    """Its effect shows with its end: sent a second time, it is refused because the first one was carried out."""
    main = {
        "id": "br-1", "name": "main", "current_state": "ready", "created_at": "2026-01-01T00:00:00Z",
        "default": True, "protected": False,
    }  # fmt: skip
    branches = httpx.Response(200, json={"branches": []})
    kept = httpx.Response(200, json={"branches": [{**main, "name": "kept"}] if taken else []})
    script = [
        httpx.ReadTimeout("lost"), branches, refused(422, "it is finalized"), kept,
        httpx.Response(200, json={"branch": main}), httpx.Response(200, json={"operations": []}),
        httpx.Response(200, json={"branch": main}),
    ]  # fmt: skip
    api = Api(client(script, looks=1), "p", timeout_s=10)

    if taken:
        assert api.finalize("br-1", old_name="kept", watch=len).name == "main"
        return
    with pytest.raises(UnfitError, match="it is finalized"):
        api.finalize("br-1", old_name="kept", watch=len)
