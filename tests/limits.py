"""Limits of a process that need no privilege to be set."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def small_files(size_bytes: int) -> Iterator[None]:
    """Write no larger file meanwhile, here and in what is started: the system refuses it as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
