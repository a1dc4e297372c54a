"""Burgers' equation from steep random waves, periodic in space: u_t + (u^2 / 2)_x = (nu / pi) u_xx on [0, 1] x [0, T].

Values are means of cells, as PDEBench's are. Initial states are those of `periodic`. Solved as `burgers` is, by Fourier
series on a finer grid, from the trigonometric polynomial whose means are the first frame's; of 64 cells, where nu is
0.01, to 6e-7 of the solution on twice as many points in the root mean square, and to 5e-5 at the steepest front.

The residual is the conservative balance of each step in its middle, differences central; the other one is Preissmann's
box, between two cells. Both are of second order, on means as on values. A front from one to minus one is 4 nu / pi
wide, 0.013 where nu is 0.01: less than a cell of 64, so that neither vanishes on the data. In the root mean square, of
rates of 1.13, and of the same data with noise of 1 % and of 10 % of their size:

    central 0.357, 0.384, 1.48;   box 0.613, 0.622, 1.22

The mean is kept to rounding, energy is lost. A mean of solutions is no solution; one factor of the product that is
another's, u_0 of a clean example, makes the balance linear, u_t + (u_0 u / 2)_x - (nu / pi) u_xx: what it asks of a
prediction u agrees with the equation where u is u_0.
Source: Takamoto et al. (2022), arXiv 2210.07182, for the family; Zhou, Wang, Yu (2025), arXiv 2409.00730, for factors
of a clean example.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from phdme_jax.numerics.bound import Bound
from phdme_jax.numerics.grid import Grid
from phdme_jax.systems.equations.base import Equations, Residuals, Sample, unconditional
from phdme_jax.systems.equations.burgers import solve_burgers
from phdme_jax.systems.equations.periodic import (
    frame_means,
    mean_changes,
    random_waves,
    translations,
    with_one_mean,
)
from phdme_jax.systems.priors import Feasibility, Priors

LEAST_VISCOSITY = 0.01  # below it fronts are narrower than what the solver's grid holds


def _middle(values: Float[Array, "x time"]) -> Float[Array, "x step"]:
    return 0.5 * (values[:, 1:] + values[:, :-1])


def _curvature(values: Float[Array, "x step"]) -> Float[Array, "x step"]:
    return len(values) ** 2 * (jnp.roll(values, -1, axis=0) - 2 * values + jnp.roll(values, 1, axis=0))


def _balance(
    viscosity: float, duration: float, carrier: Float[Array, "x time"], values: Float[Array, "x time"]
) -> Float[Array, "x time"]:
    """u_t + (a u / 2)_x - viscosity u_xx in the middle of each step, at the frame where it ends; zero at the first."""
    middle = _middle(values)
    product = 0.5 * _middle(carrier) * middle
    slope = 0.5 * len(values) * (jnp.roll(product, -1, axis=0) - jnp.roll(product, 1, axis=0))
    change = (values.shape[1] - 1) / duration * jnp.diff(values, axis=1)
    return jnp.pad(change + slope - viscosity * _curvature(middle), ((0, 0), (1, 0)))


def _residual(viscosity: float, duration: float, fields: Float[Array, "x time 1"], condition: Array) -> Residuals:
    del condition
    return {"balance": _balance(viscosity, duration, fields[..., 0], fields[..., 0])}


def _frozen_residual(viscosity: float, duration: float, predicted: Array, clean: Array, condition: Array) -> Array:
    """The residual of what is predicted, carried by the clean example."""
    del condition
    return _balance(viscosity, duration, clean[..., 0], predicted[..., 0])


def _box_residual(viscosity: float, duration: float, fields: Float[Array, "x time 1"], condition: Array) -> Residuals:
    """Between each place and the next one, over each step, at the frame where it ends; zero at the first frame."""
    del condition
    values = fields[..., 0]
    after = jnp.roll(values, -1, axis=0)
    change = (values.shape[1] - 1) / duration * jnp.diff(0.5 * (after + values), axis=1)
    slope = _middle(0.5 * len(values) * (after**2 - values**2))
    curvature = _curvature(_middle(0.5 * (after + values)))
    return {"balance": jnp.pad(change + slope - viscosity * curvature, ((0, 0), (1, 0)))}


def _solve(viscosity: float, duration: float, num_frames: int, initial: Float[Array, "x"]) -> Float[Array, "x time 1"]:
    return solve_burgers(initial, num_frames, viscosity, duration, cells=True)[..., None]


def _resolve(viscosity: float, duration: float, fields: Array, condition: Array) -> Array:
    del condition
    return _solve(viscosity, duration, fields.shape[1], fields[:, 0, 0])


def _draw(num_points: int, num_frames: int, duration: float, viscosity: float, highest_wave: int, key: Array) -> Sample:
    return unconditional(_solve(viscosity, duration, num_frames, random_waves(num_points, highest_wave, key)))


def make_viscous_burgers(
    num_points: int = 64, num_frames: int = 64, duration: float = 1.89, viscosity: float = 0.01, highest_wave: int = 4
) -> Equations:
    """Burgers' equation as one field over space and time, from two random waves.

    Args:
      num_points: cells on [0, 1], even, around the places of the grid.
      num_frames: times on [0, duration], both ends included.
      duration: T; frames of the default stand 0.03 apart, every third of PDEBench's.
      viscosity: nu, of which the equation has one part in pi.
      highest_wave: largest number of a wave; cells that hold no more than half as many hold fewer.
    Returns:
      the equations; the field velocity on (x, t). `resolve` solves from the field's own first frame.
    Raises:
      ValueError: an odd number of places, few places or frames, no duration, no wave, or a viscosity that is too small
        for the solver.
    """
    if not viscosity >= LEAST_VISCOSITY:
        raise ValueError(f"expected a viscosity of at least {LEAST_VISCOSITY}, got {viscosity}")
    if num_points % 2 or num_points < 8 or num_frames < 2 or not duration > 0 or highest_wave < 1:
        raise ValueError(
            "expected an even number of points and at least 8, 2 frames, a positive duration and a wave, got "
            f"{num_points}, {num_frames}, {duration} and {highest_wave}; try 64, 64, 1.89 and 4"
        )
    waves, diffusivity = min(highest_wave, num_points // 2 - 1), viscosity / math.pi
    return Equations(
        name="viscous_burgers",
        grid=Grid((num_points, num_frames), (1.0 - 1.0 / num_points, duration)),
        fields=("velocity",),
        units=("1",),
        residual=Bound(_residual, diffusivity, duration),
        draw=Bound(_draw, num_points, num_frames, duration, diffusivity, waves),
        resolve=Bound(_resolve, diffusivity, duration),
        unseen=Bound(_box_residual, diffusivity, duration),
        conserved=mean_changes,
        affine_conserved=True,
        priors=Priors(
            symmetry=translations(num_points),
            feasibilities=(Feasibility("balance", "multilinear", Bound(_frozen_residual, diffusivity, duration)),),
            invariants=(("mass", frame_means),),
            project=with_one_mean,
        ),
        time_axis=1,
        periodic_axes=(0,),
    )
