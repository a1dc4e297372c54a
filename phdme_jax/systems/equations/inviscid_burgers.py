"""Burgers' equation without viscosity, as Godunov's scheme has it: u_t + (u^2 / 2)_x = 0 on [0, 1] x [0, T].

    u_i' = u_i - dt / dx (F(u_i, u_i+1) - F(u_i-1, u_i)),   F(l, r) = max(max(l, 0)^2, min(r, 0)^2) / 2
    u(x, 0) = 1 / (1 + exp((x - p) / 0.02)),   u(0, t > 0) = q,   u(1, t > 0) that of the neighbour
    p uniform on [0.2, 0.8], q uniform on [0, 1]

Points are the middles of cells, those at both ends boundary values. The residual is the scheme's own, one step from
frame to frame, and vanishes to rounding; so does the balance of what the inner cells hold with the scheme's fluxes
through their ends. Neither p nor q is a field, and neither is needed: the first frame says p, and of q the residual
asks that the values at the left end do not change after the first frame.
Source: Utkarsh et al. (2025), arXiv 2506.04171, for the family; LeVeque (2002), Finite Volume Methods for Hyperbolic
Problems, section 12.1, for the scheme.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from phdme_jax.numerics.bound import Bound
from phdme_jax.numerics.grid import Grid
from phdme_jax.systems.equations.base import Equations, Residuals, Sample, unconditional, uniform_unless

SHOCKS, INLETS, WIDTH = (0.2, 0.8), (0.0, 1.0), 0.02


def godunov_flux(values: Float[Array, "x ..."]) -> Float[Array, "faces ..."]:
    """Flux of u^2 / 2 between neighbours along the first axis, that of the exact solution of their jump."""
    left, right = jnp.maximum(values[:-1], 0.0), jnp.minimum(values[1:], 0.0)
    return 0.5 * jnp.maximum(left**2, right**2)


def solve_godunov(
    initial: Float[Array, "x"], inlet: Float[Array, ""], num_frames: int, ratio: float
) -> Float[Array, "x time"]:
    """Frames of Godunov's scheme, one step between them.

    Args:
      initial: values at the first frame, both ends included.
      inlet: value at the left end from the second frame on.
      num_frames: frames, the first one included.
      ratio: dt / dx, stable where no value is beyond its inverse.
    Returns:
      values at all frames.
    """

    def step(values: Array, _: None) -> tuple[Array, Array]:
        inner = values[1:-1] - ratio * jnp.diff(godunov_flux(values))
        ahead = jnp.concatenate([inlet[None], inner, inner[-1:]])
        return ahead, ahead

    _, later = jax.lax.scan(step, initial, None, length=num_frames - 1)
    return jnp.concatenate([initial[None], later]).T


def _spacing(duration: float, values: Array) -> tuple[float, float]:
    return 1.0 / (values.shape[0] - 1), duration / (values.shape[1] - 1)


def _residual(duration: float, fields: Float[Array, "x time 1"], condition: Array) -> Residuals:
    """Of each step at the frame where it ends, zero at the first; at the ends what is asked of the boundary values."""
    del condition
    values = fields[..., 0]
    spacing, dt = _spacing(duration, values)
    inner = jnp.diff(values[1:-1], axis=1) / dt + jnp.diff(godunov_flux(values), axis=0)[:, :-1] / spacing
    inlet = jnp.pad(jnp.diff(values[0, 1:]), (1, 0)) / dt
    outlet = (values[-1] - values[-2])[1:] / spacing
    return {"balance": jnp.pad(jnp.concatenate([inlet[None], inner, outlet[None]]), ((0, 0), (1, 0)))}


def _central_residual(duration: float, fields: Float[Array, "x time 1"], condition: Array) -> Residuals:
    """Differences of second order at the middle of each step; of the data it is as large as shocks are steep."""
    del condition
    values = fields[..., 0]
    spacing, dt = _spacing(duration, values)
    square = 0.5 * (0.5 * (values[:, 1:] + values[:, :-1])) ** 2
    inner = jnp.diff(values[1:-1], axis=1) / dt + (square[2:] - square[:-2]) / (2 * spacing)
    return {"balance": jnp.pad(inner, ((1, 1), (1, 0)))}


def _conserved(duration: float, fields: Float[Array, "x time 1"], condition: Array) -> Float[Array, "later"]:
    """Mean of the inner cells at each later frame, less that of the first frame and what came through their ends."""
    del condition
    values = fields[..., 0]
    spacing, dt = _spacing(duration, values)
    mean = jnp.mean(values[1:-1], axis=0)
    gained = godunov_flux(values[:2])[0] - godunov_flux(values[-2:])[0]
    length = spacing * (values.shape[0] - 2)
    return mean[1:] - mean[0] - dt / length * jnp.cumsum(gained[:-1])


def _resolve(duration: float, fields: Array, condition: Array) -> Array:
    del condition
    values = fields[..., 0]
    spacing, dt = _spacing(duration, values)
    most = spacing / dt  # what the scheme bears
    initial, inlet = jnp.clip(values[:, 0], -most, most), jnp.clip(jnp.mean(values[0, 1:]), -most, most)
    return solve_godunov(initial, inlet, values.shape[1], dt / spacing)[..., None]


def _draw(
    num_points: int, num_frames: int, duration: float, shock: float | None, inlet: float | None, key: Array
) -> Sample:
    first, second = jax.random.split(key)
    place, value = uniform_unless(shock, SHOCKS, first), uniform_unless(inlet, INLETS, second)
    initial = jax.nn.sigmoid((place - jnp.linspace(0.0, 1.0, num_points)) / WIDTH)
    ratio = duration / (num_frames - 1) * (num_points - 1)
    return unconditional(solve_godunov(initial, value, num_frames, ratio)[..., None])


def make_inviscid_burgers(
    name: str,
    num_points: int = 64,
    num_frames: int = 64,
    duration: float = 1.0,
    shock: float | None = None,
    inlet: float | None = None,
) -> Equations:
    """Burgers' equation without viscosity as one field over space and time, from a step and a value at its left end.

    Args:
      name: name used in results.
      num_points: places on [0, 1], both ends included.
      num_frames: times on [0, duration], both ends included.
      duration: T.
      shock: p, place of the step at first; None draws it.
      inlet: q, value at the left end later; None draws it.
    Returns:
      the equations; the field velocity on (x, t). `resolve` solves from the field's own first frame and the mean of its
      later values at the left end, cut off at dx / dt, beyond which the scheme is unstable.
    Raises:
      ValueError: few places or frames, or a step between frames that is longer than a value of one takes to the next
        place.
    """
    if num_points < 5 or num_frames < 3:
        raise ValueError(f"expected at least 5 points and 3 frames, got {num_points} and {num_frames}")
    if not 0 < duration * (num_points - 1) <= (num_frames - 1) * (1 + 1e-9):
        raise ValueError(
            f"expected frames no further apart than places, got {num_frames} over {duration} and {num_points} places; "
            f"try num_frames={num_points} and duration=1.0"
        )
    return Equations(
        name=name,
        grid=Grid((num_points, num_frames), (1.0, duration)),
        fields=("velocity",),
        units=("1",),
        residual=Bound(_residual, duration),
        draw=Bound(_draw, num_points, num_frames, duration, shock, inlet),
        resolve=Bound(_resolve, duration),
        unseen=Bound(_central_residual, duration),
        conserved=Bound(_conserved, duration),
        time_axis=1,
    )
