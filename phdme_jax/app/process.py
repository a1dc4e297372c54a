"""Global state of a process that runs a command: double precision, a device, programs and freed memory kept."""

import ctypes
import os
import sys
from pathlib import Path

from phdme_jax.files import InputError, RunFailed

CACHE_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
_M_TOP_PAD = -2  # of mallopt: how much of the heap glibc asks for, and keeps, beyond what is in use


def prepare_process() -> None:
    """Double precision, compiled programs kept between processes, freed memory kept within this one.

    Reference data and GP stages are float64; the networks ask for float32 themselves. Products are made of all digits,
    where accelerators would round the factors, a GPU to three: a residual, which divides differences by the square of
    a spacing, would see it. Only the convolutions inside a U-Net ask for less. Programs are kept in the folder that the
    user's environment names, if it names one.

    Raises:
      InputError: JAX_PLATFORMS names a platform that is not there, or JAX is told to join no two types.
      RunFailed: JAX finds no device of its own accord.
    """
    import jax

    if (promotion := jax.config.jax_numpy_dtype_promotion) != "standard":
        raise InputError(
            f"JAX_NUMPY_DTYPE_PROMOTION={promotion}: expected standard, as single and double precision meet here; "
            "unset the variable"
        )
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "float32")
    _keep_programs()
    _keep_freed_memory()
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the second, without words, where a platform has no plugin
        why = f" ({error})" if str(error) else ""
        if named := os.environ.get("JAX_PLATFORMS"):
            advice = "unset the variable, or try JAX_PLATFORMS=cpu"
            raise InputError(f"JAX_PLATFORMS={named}: JAX finds no such device here{why}; {advice}") from None
        raise RunFailed(f"JAX finds no device to run on{why}; try JAX_PLATFORMS=cpu") from None


def _keep_programs() -> None:
    """Keep compiled programs in a folder that nobody else may write to: who can change a program runs what they like.

    The smallest are kept too: a start compiles dozens of them.
    """
    import jax

    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    named = os.environ.get(CACHE_VARIABLE, "")
    if "://" in named:  # not of this file system
        return
    try:
        folder = Path(named) if named else Path.home() / ".cache" / "phdme_jax"
        fault = _private_fault(folder)
    except (OSError, RuntimeError) as error:  # Path.home raises the second where nobody knows the home
        folder, fault = None, f"no folder for them can be made ({error})"
    jax.config.update("jax_compilation_cache_dir", str(folder) if fault is None else None)
    if fault is not None:
        advice = f"name a folder of your own with {CACHE_VARIABLE}"
        print(f"note: compiled programs are not kept, so that starts take longer: {fault}; {advice}", file=sys.stderr)


def _private_fault(folder: Path) -> str | None:
    """What is wrong with a folder as one that its user alone may write to; made, with its parents, where missing."""
    for place in (*reversed(folder.parents), folder):
        place.mkdir(mode=0o700, exist_ok=True)
    if os.name != "posix":
        return None
    status = folder.stat()
    if status.st_uid != os.getuid():
        return f"{folder} belongs to another user"
    return f"others may write to {folder} (mode {status.st_mode & 0o777:o})" if status.st_mode & 0o022 else None


def _keep_freed_memory() -> None:
    """Keep what is freed at the top of the heap within this process.

    A step of training asks for what the one before it freed: handing it back to the system each time costs up to a
    quarter of the step on a CPU. Linux with glibc; nothing happens elsewhere.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_M_TOP_PAD, 256 * 2**20)
