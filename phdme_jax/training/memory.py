"""What a compiled function holds in memory, as its compiler plans it."""

import jax


def peak_bytes(compiled: jax.stages.Compiled) -> float | None:
    """Most bytes that a compiled function holds at a time on one device, by the compiler's plan.

        arguments + outputs - outputs in the place of arguments + temporaries

    Args:
      compiled: from `jitted.lower(...).compile()`.
    Returns:
      bytes, None where the backend does not say.
    """
    try:
        plan = compiled.memory_analysis()
    except (RuntimeError, NotImplementedError):
        return None
    if plan is None:
        return None
    shared = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return float(shared + plan.temp_size_in_bytes) or None
