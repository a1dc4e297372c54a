"""Standard streams of a command: what cannot be printed is escaped, and where nobody listens the work goes on."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO


class _Tolerant:
    """A text stream whose writes never fail: from the first that cannot be done on, nothing is written any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        encoding = self._stream.encoding or "utf-8"
        self._attempt(self._stream.write, text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def _attempt(self, call: Callable[..., Any], *arguments: str) -> None:
        try:
            call(*arguments)
        except (OSError, ValueError):  # the reader has gone, the disk behind it is full, the stream is closed
            # what is buffered goes there too, else the interpreter complains of it at its end
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nothing:
                os.dup2(nothing.fileno(), self._stream.fileno())


@contextlib.contextmanager
def tolerant_streams() -> Iterator[None]:
    """Standard output and standard error that stop no work, however the process was started."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed, so that the next file to be opened would get this number, and the messages for it
            os.open(os.devnull, os.O_RDWR)
    with open(os.devnull, "w") as nothing:
        output, errors = (_Tolerant(stream or nothing) for stream in (sys.stdout, sys.stderr))
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):  # type: ignore[type-var]
            try:
                yield
            finally:
                output.flush()
                errors.flush()
