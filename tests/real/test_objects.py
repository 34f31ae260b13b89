"""Objects on a real S3 server: listed whole, read with credentials that may only read, and every refusal named."""

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import boto3
import pytest

from fixtures.command import run
from fixtures.errors import ProviderError
from fixtures.postgres.server import free_port
from fixtures.providers.basebackup.fetch import plain
from fixtures.providers.objects import Bucket, MissingObjectError, UnansweredError
from fixtures.settings import ObjectUrl, S3Access
from tests.missing import missing
from tests.real.s3_server import BUCKET, KEY, READER, READER_SECRET, S3, SECRET, s3_server
from tests.real.session_tokens import session_tokens


@pytest.fixture(scope="module")
def store(public_dir: Path) -> Iterator[S3]:
    with s3_server(public_dir / "objects") as made:
        yield made


@pytest.fixture
def bucket(store: S3, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """Read with credentials that can only read and list."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
    access = S3Access(endpoint_url=f"https://127.0.0.1:{store.port}", ca_file=store.authority)
    return Bucket(url=ObjectUrl(BUCKET, "shop/db"), access=access)


def put(bucket: Bucket, objects: Mapping[str, bytes]) -> None:
    """Write objects with credentials that may."""
    client = boto3.client(
        "s3", endpoint_url=bucket.access.endpoint_url, verify=str(bucket.access.ca_file), region_name="auto",
        aws_access_key_id=KEY, aws_secret_access_key=SECRET,
    )  # fmt: skip
    for key, content in objects.items():
        client.put_object(Bucket=BUCKET, Key=key, Body=content)


def refusal(bucket: Bucket) -> str:
    """What listing is refused with, as a person reads it."""
    with pytest.raises(ProviderError) as error:
        list(bucket.list())
    assert error.value.code == "RB309"
    return f"{error.value.fact} | {' '.join(error.value.hints)}"


def test_a_place_is_listed_whole_and_nothing_beside_it(bucket: Bucket) -> None:
    """More than a page of objects, in folders, and a neighbour whose name begins the same."""
    names = [f"wal/{number:04}" for number in range(1_003)]
    put(bucket, {f"shop/db/{name}": b"x" for name in [*names, "base/one/label"]})
    put(bucket, {"shop/db2/other": b"x"})

    assert [entry.name for entry in bucket.list()] == ["base/one/label", *names]
    assert [entry.name for entry in bucket.list("wal")] == [name.removeprefix("wal/") for name in names]
    assert list(bucket.folders()) == ["base", "wal"]
    assert list(bucket.folders("base")) == ["one"]
    assert list(bucket.list("nothing")) == []


def test_an_object_is_read_in_part_and_downloaded_whole(bucket: Bucket, tmp_path: Path) -> None:
    """Larger than one part, so that it is fetched in several."""
    content = bytes(range(256)) * (40 * 4096)
    put(bucket, {"shop/db/large": content})

    bucket.download("large", tmp_path / "large")

    same = (tmp_path / "large").read_bytes() == content  # not in the assert: a difference would be printed
    assert same
    assert bucket.read("large", first=10) == content[:10]
    assert bucket.size("large") == len(content)
    assert [path.name for path in tmp_path.iterdir()] == ["large"]


def test_a_missing_object_is_told_from_a_store_that_refuses(bucket: Bucket, tmp_path: Path) -> None:
    """Only the store's own word counts as "not there"; nothing half-written stays."""
    with pytest.raises(MissingObjectError):
        bucket.read("nobody")
    with pytest.raises(MissingObjectError):
        bucket.size("nobody")
    with pytest.raises(MissingObjectError):
        bucket.download("nobody", tmp_path / "nobody")
    elsewhere = replace(bucket, url=ObjectUrl("nobodys-bucket"))
    with pytest.raises(ProviderError) as error:
        elsewhere.read("label")

    assert not isinstance(error.value, MissingObjectError)
    assert not list(tmp_path.iterdir())


def test_each_refusal_names_what_a_person_can_do(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong bucket, wrong key, wrong secret, no credentials, an unknown certificate, nobody there."""
    assert "bucket's name" in refusal(replace(bucket, url=ObjectUrl("nobodys-bucket", "shop")))
    strange = bucket.access.model_copy(update={"ca_file": None})
    assert "certificate" in refusal(replace(bucket, access=strange))
    dead = bucket.access.model_copy(update={"endpoint_url": f"https://127.0.0.1:{free_port()}"})
    assert "cannot be reached" in refusal(replace(bucket, access=dead))
    nameless = bucket.access.model_copy(update={"profile": "nobody"})
    assert "no credentials" in refusal(replace(bucket, access=nameless))

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "AWS_SECRET_ACCESS_KEY" in refusal(replace(bucket, url=ObjectUrl(BUCKET, "a")))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    assert "AWS_ACCESS_KEY_ID" in refusal(replace(bucket, url=ObjectUrl(BUCKET, "b")))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert "no credentials" in refusal(replace(bucket, url=ObjectUrl(BUCKET, "c")))


def test_a_refusal_without_a_word_is_told_in_words(
    bucket: Bucket, store: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A HEAD is refused with a status alone: what it stands for is asked; where nothing more is said, it stays."""
    put(bucket, {"shop/db/label": b"x"})

    def asked(within: Bucket) -> str:
        with pytest.raises(ProviderError) as error:
            within.size("label")
        assert (error.value.code, isinstance(error.value, MissingObjectError)) == ("RB309", False)
        return f"{error.value.fact} | {' '.join(error.value.hints)}"

    assert "bucket's name" in asked(replace(bucket, url=ObjectUrl("nobodys-bucket", "shop/db")))
    with session_tokens(store) as double:
        issued = double.issue()
        for name, value in issued.variables.items():
            monkeypatch.setenv(name, value)
        access = bucket.access.model_copy(update={"endpoint_url": double.endpoint_url})
        assert replace(bucket, access=access).size("label") == 1
        issued.expired = True
        assert "log in again" in asked(replace(bucket, access=access))
        monkeypatch.setenv("AWS_SESSION_TOKEN", "nobodys")
        assert "InvalidToken" in asked(replace(bucket, access=access))
        monkeypatch.delenv("AWS_SESSION_TOKEN")
        assert "AWS_SESSION_TOKEN" in asked(replace(bucket, access=access))
        assert issued.token not in asked(replace(bucket, access=access))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "AWS_SECRET_ACCESS_KEY" in asked(replace(bucket))


def test_a_login_that_has_expired_is_no_outage(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Waiting does not bring it back: single sign-on without its token, and a helper that fails."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    config = tmp_path / "config"
    config.write_text(
        "[profile login]\nsso_start_url = https://nobody.example\nsso_region = eu-central-1\n"
        "sso_account_id = 123456789012\nsso_role_name = restore\n"
        "[profile helper]\ncredential_process = /bin/false\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("HOME", str(tmp_path))
    for profile in ("login", "helper"):
        access = bucket.access.model_copy(update={"profile": profile})
        with pytest.raises(ProviderError) as error:
            list(replace(bucket, access=access).list())
        assert not isinstance(error.value, UnansweredError)
        assert "log in again" in error.value.hints[0]


def test_a_wrong_clock_is_named(bucket: Bucket, tmp_path: Path) -> None:
    """Signatures carry their time: a machine an hour ahead is refused and told why, with a HEAD, too."""
    faketime = shutil.which("faketime")
    if faketime is None:
        missing("faketime, to ask with a wrong clock")
    put(bucket, {"shop/db/label": b"x"})
    script = tmp_path / "ask.py"
    script.write_text(
        "import sys\nfrom fixtures.errors import ProviderError\n"
        "from fixtures.providers.basebackup.fetch import from_plain\n"
        "import json\nbucket = from_plain(json.loads(sys.argv[1]))\n"
        "for ask in (lambda: list(bucket.list()), lambda: bucket.size('label')):\n"
        "    try:\n        print(ask())\n"
        "    except ProviderError as error:\n        print(error.code, error.fact, error.hints)\n"
    )

    said = run(
        [faketime, "-f", "+1h", sys.executable, script, json.dumps(plain(bucket))], timeout_s=60,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "AWS_ACCESS_KEY_ID": READER, "AWS_SECRET_ACCESS_KEY": READER_SECRET},
    ).stdout.splitlines()  # fmt: skip

    assert [line[:5] for line in said] == ["RB309", "RB309"]
    assert all("RequestTimeTooSkewed" in line and "clock" in line for line in said)


def test_the_secret_stands_in_no_message(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{SECRET}-wrong")

    assert SECRET not in refusal(replace(bucket, url=ObjectUrl(BUCKET, "d")))
