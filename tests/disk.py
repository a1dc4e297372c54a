"""A full disk, as far as a test can have one: no file grows beyond a size."""

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def full_disk(largest: int = 100) -> Iterator[None]:
    """For the block, which must not print much, a write beyond `largest` bytes of a file fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
