"""The drill's S3 server, for tests of stores that live on one."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fixtures.command import JobRef, end_job
from fixtures.drill.record import FIRST_SIGNAL, STORE, remove_outside
from fixtures.drill.s3 import BUCKET, S3, Identity, begin_s3
from fixtures.errors import ToolError
from tests.missing import missing

__all__ = ["BUCKET", "KEY", "READER", "READER_SECRET", "S3", "SECRET", "s3_server"]

KEY, SECRET = "tests-writer", "tests-writer-secret-0123456789"
READER, READER_SECRET = "tests-reader", "tests-reader-secret-0123456789"


@contextmanager
def s3_server(home: Path) -> Iterator[S3]:
    """Run one below `home`; ended behind it."""
    jobs: list[JobRef] = []

    def start(begin: Callable[[], JobRef]) -> JobRef:
        jobs.append(begin())
        return jobs[-1]

    try:
        try:
            made = begin_s3(
                home, start=start,
                writer=Identity(key=KEY, secret=SECRET), reader=Identity(key=READER, secret=READER_SECRET),
            )  # fmt: skip
        except ToolError as error:
            if error.code != "RB109":
                raise
            missing(error.fact)
        yield made
    finally:
        for job in jobs:
            end_job(job, first=FIRST_SIGNAL[STORE])
        remove_outside(home)
        if home.exists():
            shutil.rmtree(home)
