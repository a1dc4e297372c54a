"""Global state of a process that runs a command: double precision, compiled programs kept, freed memory kept."""

import ctypes
import os
import sys
from pathlib import Path

_M_TOP_PAD = -2  # of mallopt: how much of the heap glibc asks for, and keeps, beyond what is in use


def prepare_process() -> None:
    """Double precision, compiled programs kept between processes, freed memory kept within this one.

    Reference data and GP stages are float64; the networks ask for float32 themselves. Products are made of all digits,
    where accelerators would round the factors, a GPU to three: a residual, which divides differences by the square of
    a spacing, would see it. Only the convolutions inside a U-Net ask for less. Programs are kept in the folder that the
    user's environment names, if it names one.
    """
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "float32")
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "phdme_jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Keep what is freed at the top of the heap within this process.

    A step of training asks for what the one before it freed: handing it back to the system each time costs up to a
    quarter of the step on a CPU. Linux with glibc; nothing happens elsewhere.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_M_TOP_PAD, 256 * 2**20)
