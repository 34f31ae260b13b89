"""R2's rules for requests, enforced by a double in front of a real S3 server: our use of S3 keeps them."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import boto3
import pytest
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError

from fixtures.drill.archiving.objects import upload_tree
from fixtures.drill.s3 import S3
from fixtures.postgres.binaries import Binaries
from fixtures.postgres.session import connect
from fixtures.production.capture import capture
from fixtures.progress import Tick
from fixtures.providers.base import Target, TargetKind
from fixtures.providers.local.uploader import Place, archive
from fixtures.providers.objects import Bucket
from fixtures.providers.objects.client import s3_client
from fixtures.settings import ObjectUrl, S3Access
from tests.real.basebackup_s3_lab import BaseBackupS3Lab, Entrance
from tests.real.r2_rules import SMALLEST_PART, R2Rules, r2_rules
from tests.real.restore_world import ROWS, World, production
from tests.real.s3_server import BUCKET, KEY, SECRET


@pytest.fixture(scope="module")
def given(public_dir: Path) -> Iterator[dict[str, object]]:
    """A real S3 server."""
    with BaseBackupS3Lab.surroundings(public_dir) as made:
        yield dict(made)


@pytest.fixture(scope="module")
def double(given: dict[str, object]) -> Iterator[R2Rules]:
    """The double in front of it."""
    s3 = given["s3"]
    assert isinstance(s3, S3)
    with r2_rules(s3) as made:
        yield made


@pytest.fixture(scope="module")
def world(public_dir: Path, binaries: Binaries, double: R2Rules) -> Iterator[World]:
    """Production whose store is behind the double."""
    kind = partial(BaseBackupS3Lab, s3=replace(double.s3, port=double.port), door=Entrance(double))
    with production(public_dir, kind, binaries) as made:
        yield made


def client(double: R2Rules, *, region: str = "auto", **config: str) -> BaseClient:
    """A client of the double, with the SDK's defaults but for `config`."""
    return boto3.client(
        "s3", endpoint_url=f"https://127.0.0.1:{double.port}", verify=str(double.s3.authority),
        region_name=region, aws_access_key_id=KEY, aws_secret_access_key=SECRET,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, **config),
    )  # fmt: skip


def test_the_double_refuses_what_r2_refuses(double: R2Rules) -> None:
    """The SDK's default checksums, another region, parts of two sizes."""
    with pytest.raises(ClientError, match="NotImplemented"):
        client(double).put_object(Bucket=BUCKET, Key="rules/one", Body=b"x")
    needed = {
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    plain = client(double, **needed)
    with pytest.raises(ClientError, match="InvalidRegionName"):
        client(double, region="eu-central-1", **needed).put_object(Bucket=BUCKET, Key="rules/one", Body=b"x")
    plain.put_object(Bucket=BUCKET, Key="rules/one", Body=b"x")
    upload = plain.create_multipart_upload(Bucket=BUCKET, Key="rules/many")["UploadId"]
    parts = [
        {
            "PartNumber": number,
            "ETag": plain.upload_part(
                Bucket=BUCKET, Key="rules/many", UploadId=upload, PartNumber=number, Body=bytes(size)
            )["ETag"],
        }
        for number, size in enumerate((SMALLEST_PART, SMALLEST_PART + 1, 10), start=1)
    ]
    with pytest.raises(ClientError, match="same length"):
        plain.complete_multipart_upload(
            Bucket=BUCKET, Key="rules/many", UploadId=upload, MultipartUpload={"Parts": parts}
        )
    assert plain.get_object(Bucket=BUCKET, Key="rules/one")["Body"].read() == b"x"


def test_a_restore_keeps_the_rules(world: World, double: R2Rules) -> None:
    """Production's log and backup, the restore, and the copy's own new prefix: nothing is refused."""
    double.refused.clear()
    provider = world.provider("r2")
    target = Target(kind=TargetKind.XID, value=str(world.damage.xid), exclusive=True)

    assert provider.check(target) == []
    plan = provider.plan(target)
    try:
        restored = provider.start(plan, _quiet)

        with connect(restored.ref.endpoint) as session:
            assert session.value("SELECT count(*) FROM public.t") == ROWS + 1
        assert provider.promote(restored.ref).timeline == 2
        lab = world.lab
        assert isinstance(lab, BaseBackupS3Lab)
        service = provider.admit(
            plan.instance, capture(world.server.endpoint), archive=lab.new_place("r2/archive"),
            base_backups=lab.new_place("r2/base"), supervisor=None, allowed={},
        )  # fmt: skip
        assert service.unprotected_since is None
    finally:
        provider.discard(plan.instance)
    assert double.refused == []
    assert {"GET", "HEAD"} <= set(double.passed)
    assert len(double.written) == len(set(double.written))


def test_large_objects_keep_the_rules(
    double: R2Rules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload in parts, from a file and from a stream, and a download in parts, of what is larger than one."""
    double.refused.clear()
    tree = tmp_path / "backup"
    tree.mkdir()
    (tree / "large").write_bytes(bytes(range(256)) * (180 * 1024))
    (tree / "backup_manifest").write_bytes(b"{}")

    upload_tree(replace(double.s3, port=double.port), tree, "rules/tree")
    access = S3Access(endpoint_url=f"https://127.0.0.1:{double.port}", ca_file=double.s3.authority)
    Bucket(url=ObjectUrl(BUCKET, "rules/tree"), access=access).download("large", tmp_path / "large")

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    place = Place(
        client=s3_client(access.model_dump(mode="json")), marker=".", run_id="r2", segment_bytes=0,
        places={kind: {"bucket": BUCKET, "prefix": f"rules/{kind}"} for kind in ("archive", "base_backups")},
    )  # fmt: skip
    archive(place, tree / "large", "segment")
    with (tree / "large").open("rb") as stream:
        place.put_stream("base_backups", "large", stream)
    for kind, name in (("archive", "segment"), ("base_backups", "large")):
        assert b"".join(place.chunks(kind, name) or ()) == (tree / "large").read_bytes()

    assert double.refused == []
    assert "POST" in double.passed
    same = (tmp_path / "large").read_bytes() == (tree / "large").read_bytes()
    assert same


def _quiet(_: Tick) -> None:
    pass
