"""Reference solutions at stated tolerances, through diffrax."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree


def solve_reference(
    vector_field: Callable[[Array, PyTree], Array],
    state: Float[Array, "*state"],
    times: Float[Array, "time"],
    parameters: PyTree,
    *,
    rtol: float = 1e-9,
    atol: float = 1e-10,
    max_steps: int = 100_000,
) -> tuple[Float[Array, "time *state"], Bool[Array, ""]]:
    """Solve dx/dt = f(x, parameters) by the eighth-order Dormand-Prince method with adaptive steps.

    Args:
      vector_field: f(state, parameters), shape of the state.
      state: state at the first time.
      times: increasing output times.
      parameters: passed on to the vector field.
      rtol: relative tolerance of a step.
      atol: absolute tolerance of a step.
      max_steps: steps after which the solution is given up.
    Returns:
      states at the output times, and whether the solve ended well (then all values are finite).
    Source: Prince and Dormand (1981); diffrax `Dopri8`.
    """
    import diffrax  # takes longer to import than most programs use it

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, x, args: vector_field(x, args)),
        diffrax.Dopri8(),
        t0=times[0],
        t1=times[-1],
        dt0=None,
        y0=state,
        args=parameters,
        saveat=diffrax.SaveAt(ts=times),
        # steps end at the output times: the dense interpolation between steps is of lower order than the method
        stepsize_controller=diffrax.ClipStepSizeController(diffrax.PIDController(rtol=rtol, atol=atol), step_ts=times),
        max_steps=max_steps,
        throw=False,
    )
    trajectory = solution.ys
    ok = (solution.result == diffrax.RESULTS.successful) & jnp.all(jnp.isfinite(trajectory))
    return trajectory, ok
