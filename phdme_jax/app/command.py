"""What every command shares: a parser whose complaints are one sentence, overrides, exit codes."""

import argparse
import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from phdme_jax.app.streams import tolerant_streams
from phdme_jax.files import MACHINE_ERRORS, InputError, RunFailed


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose complaints are InputErrors of one sentence and which takes no abbreviations."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> Any:
        """Raises InputError instead of printing the usage."""
        raise InputError(f"{message}; see --help")


@contextlib.contextmanager
def user_input() -> Iterator[None]:
    """Turns a ValueError of the block into an InputError; for blocks that build something from what the user gave."""
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from error


def command_line(program: str, arguments: Sequence[str] | None) -> str:
    """A command as it can be typed again: a program with its arguments, or where they are None that of this process."""
    return shlex.join(["python", *sys.orig_argv[1:]] if arguments is None else [*program.split(), *arguments])


def run_main(function: Callable[[], object], command: str = "") -> int:
    """Runs the body of a command and turns how it ends into an exit code.

    Args:
      function: the body.
      command: the command to print after an interruption, see `command_line`.

    Returns:
      0; 2 after an InputError and 1 after a RunFailed, whose one sentence goes to standard error, or where memory or
      disk is full; 130 after an interruption.
    """
    with tolerant_streams():
        try:
            function()
        except InputError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            return 2
        except RunFailed as error:
            print(f"failed: {' '.join(str(error).split())}", file=sys.stderr)
            return 1
        except OSError as error:
            if error.errno not in MACHINE_ERRORS:
                raise
            reason = f"{error.filename or 'a file'}: cannot be written ({error.strerror})"
            print(f"failed: {reason}; once that is mended, the same command goes on", file=sys.stderr)
            return 1
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            print(f"failed: the memory is full ({str(error)[:120]}); try a smaller --size or number", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"\ninterrupted; the same command goes on from here: {command}", file=sys.stderr)
            return 130
    return 0


def split_overrides(rest: Sequence[str]) -> dict[str, str]:
    """`--config.a.b=1` and `--config.a.b 1` as {"a.b": "1"}; anything else is refused."""
    overrides: dict[str, str] = {}
    words = iter(rest)
    for word in words:
        if not word.startswith("--config."):
            raise InputError(f"unknown argument {word!r}; see --help")
        key, sign, value = word.removeprefix("--config.").partition("=")
        if not sign:
            value = next(words, "--")
            if value.startswith("--"):
                raise InputError(f"--config.{key} has no value; expected --config.{key}=VALUE")
        overrides[key] = value
    return overrides


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """A type of argparse: whole numbers from `least` to `most`."""

    def parse(text: str) -> int:
        whole = text.isascii() and text.isdigit()
        if not whole or int(text[:20]) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text[:40]!r}")
        if len(text) > 20 or int(text) > most:
            raise argparse.ArgumentTypeError(f"expected a whole number of at most {most}, got {text[:40]!r}")
        return int(text)

    return parse


def path(text: str) -> Path:
    """A type of argparse: a path, `~` expanded."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got ''; is a variable of the shell empty?")
    try:
        found = Path(text).expanduser()
        found.exists()
    except (OSError, RuntimeError) as error:  # a name that is too long, a folder without permission, an unknown home
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise argparse.ArgumentTypeError(f"expected a path, got {text[:80]!r} ({reason})") from None
    return found


def folder(text: str) -> Path:
    """A type of argparse: a path at which a folder is, or nothing yet."""
    found = path(text)
    if found.exists() and not found.is_dir():
        raise argparse.ArgumentTypeError(f"{found}: is a file; expected a folder, choose another one")
    return found


def run_folder(text: str) -> Path:
    """A type of argparse: a folder to work in, whose name is UTF-8, as the writer of checkpoints asks for."""
    found = folder(text)
    try:
        str(found.absolute()).encode("utf-8")
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{found.absolute()}: is no name in UTF-8; choose another folder") from None
    return found
