"""Limits of a process that need no privilege to be set."""

import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

#: what programs in Python start, which they let be killed by the limit
_TOLD = ("cp", "gzip", "rsync", "tar")


@contextmanager
def small_files(size_bytes: int) -> Iterator[None]:
    """Write no larger file meanwhile, here and in what is started: the system refuses it as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class _Told(subprocess.Popen[Any]):
    """A child that the limit tells of, as a full disk would, and does not kill."""

    def __init__(self, argv: tuple[str, ...], **options: Any) -> None:
        super().__init__(["env", "--ignore-signal=XFSZ", *argv], **options)


@contextmanager
def full_disk(size_bytes: int, home: Path, *, only: tuple[str, ...] = ()) -> Iterator[None]:
    """
    As `small_files`, and whatever is started is told so, like on a full disk, instead of being killed.

    Args:
        home: folder for what is put before the programs that a program in Python starts.
        only: names of the programs that write no larger file; without, nothing does.
    """
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory(dir=home) as folder:
        Path(folder).chmod(0o755)
        for name in only or _TOLD:
            path, limit = Path(folder) / name, f"; ulimit -f {size_bytes // 512}" if only else ""
            path.write_text(f"#!/bin/sh\ntrap '' XFSZ{limit}\nexec {shutil.which(name) or name} \"$@\"\n")
            path.chmod(0o755)
        patch.setenv("PATH", folder, prepend=":")
        if only:
            yield
            return
        patch.setattr(subprocess, "Popen", _Told)
        with small_files(size_bytes):
            yield
