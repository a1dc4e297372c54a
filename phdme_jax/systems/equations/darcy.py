"""Darcy flow in a unit square whose log permeability is a Gaussian field: two discretisations of one problem.

    -div(K grad p) = f,   n . grad p = 0 on the boundary,   int p = 0
    K = exp(G),   Cov[G(x), G(x')] = exp(-|x - x'| / length),   f = +10 and -10 in two opposite corners

`darcy_kle` is the discretisation of the literature: the equation multiplied out at all nodes, one-sided stencils at the
ends, more equations than unknowns, solved by least squares, so that its data have a residual of their own.
`darcy_nodal` balances the fluxes of the cells around the nodes: as many equations as unknowns, a residual of rounding.
Each is the `unseen` residual of the other.

The square has eight turns and mirror images. The covariance keeps all of them, source and sink but four: the exchange
of x and y leaves both corners where they are; half a turn exchanges them, and so changes the sign of the pressure; and
both together. Quarter turns and mirror images across x or y bring the source to a corner where there is none. Where
the modes that are kept cut a pair, see `keeps_pairs`, the exchange changes the law of the permeability, and half a turn
alone is left.

The outflow is linear in the pressure for a given permeability, and the other way round: with each of both taken from a
clean example in turn, the mean is affine in what is predicted and is the residual where that is the clean example.
Source: Bastek, Sun, Kochmann (2024), arXiv 2403.14404, section 4.1; Zhu and Zabaras (2018), J. Comput. Phys. 366.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from phdme_jax.numerics import block_tridiagonal
from phdme_jax.numerics.bound import Bound
from phdme_jax.numerics.grid import Grid
from phdme_jax.numerics.stencils import closed_matrix
from phdme_jax.systems.equations.base import Equations, Residuals, Sample, unconditional
from phdme_jax.systems.equations.gaussian_modes import karhunen_loeve, keeps_pairs
from phdme_jax.systems.priors import NO_PRIORS, Feasibility, Priors, Symmetry

CORNER = 0.125  # side of the squares that water is pumped into and out of
RATE = 10.0
REACH = 3  # nodes that the one-sided second difference reaches to


def corner_source(num_points: int) -> np.ndarray:
    """Rate f at the nodes: 10 within 0.125 of the corner (0, 0) and -10 within 0.125 of (1, 1), shape (points, points).

    Nodes belong to a corner by their index: an eighth of them along each side.
    """
    count = round(CORNER * num_points)
    if count < 1:
        raise ValueError(f"expected at least {round(0.5 / CORNER) + 1} points, got {num_points}; try 32")
    source = np.zeros((num_points, num_points))
    source[:count, :count] = RATE
    source[-count:, -count:] = -RATE
    return source


def _draw_permeability(key: Array, num_points: int, length: float, num_modes: int) -> Float[Array, "x y"]:
    modes = jnp.asarray(karhunen_loeve(num_points, length, num_modes))
    return jnp.exp(modes @ jax.random.normal(key, (num_modes,), modes.dtype))


def _along(matrix: np.ndarray, field: Float[Array, "x y"], axis: int) -> Float[Array, "x y"]:
    table = jnp.asarray(matrix, field.dtype)
    # differences by h^2: the rounded products that accelerators offer by default would leave noise alone
    exact = partial(jnp.matmul, precision="highest")
    return exact(table, field) if axis == 0 else exact(field, table.T)


def centred(pressure: Float[Array, "x y"]) -> Float[Array, "x y"]:
    """The pressure less its mean by the trapezoid rule."""
    line = np.ones(pressure.shape[0])
    line[[0, -1]] = 0.5
    weights = jnp.asarray(np.outer(line, line) / line.sum() ** 2, pressure.dtype)
    return pressure - jnp.sum(weights * pressure)


# ---- the multiplied-out equation, by least squares


def _operator(pressure: Array, permeability: Array) -> tuple[Array, Array, Array]:
    """div(K grad p) multiplied out at all nodes, negative; and the outward slopes of p at the nodes of the boundary."""
    num_points = pressure.shape[0]
    first, second = (closed_matrix(num_points, 1.0 / (num_points - 1), order) for order in (1, 2))
    slopes = [_along(first, pressure, axis) for axis in (0, 1)]
    terms = [
        permeability * _along(second, pressure, axis) + _along(first, permeability, axis) * slopes[axis]
        for axis in (0, 1)
    ]
    outward = np.zeros(num_points)
    outward[[0, -1]] = -1.0, 1.0
    side = jnp.asarray(outward, pressure.dtype)
    return -(terms[0] + terms[1]), side[:, None] * slopes[0], side * slopes[1]


def kle_residual(fields: Float[Array, "x y 2"], source: np.ndarray) -> Residuals:
    """Residuals at all nodes: the equation, and the outward slopes on the sides across x and across y, zero inside."""
    balance, across_x, across_y = _operator(fields[..., 0], fields[..., 1])
    return {"balance": balance - jnp.asarray(source, fields.dtype), "slope_x": across_x, "slope_y": across_y}


def solve_kle(permeability: Float[Array, "x y"], source: Float[Array, "x y"]) -> Float[Array, "x y"]:
    """Pressure that is best in the least-squares sense of all equations and slopes, with mean zero.

        min_p  |A p - f|^2,   A = [-(K D2 + K_x D1) ...; outward slopes],   by  A^T A p = A^T f

    The normal equations are block tridiagonal in pairs of grid rows. A constant is left free by every equation, so that
    one node may be tied and the mean taken out afterwards. One step of refinement.

    Args:
      permeability: K at the nodes of a square grid with an even number of them along each side.
      source: f.
    Returns:
      p, shape of K.
    Raises:
      ValueError: odd number of nodes, or single precision: the normal equations square the condition number, so that
        not a digit would be left.
    """
    if permeability.dtype != jnp.float64:
        raise ValueError(f"expected float64, got {permeability.dtype}; try jax.config.update('jax_enable_x64', True)")
    num_points = permeability.shape[0]
    if num_points % 2 or num_points < 2 * REACH:
        raise ValueError(f"expected an even number of points, at least {2 * REACH}, got {num_points}; try 32")
    bands = _normal_bands(permeability).at[0, 0, 0, REACH].multiply(2.0)
    pairs = bands.reshape(num_points // 2, 2, *bands.shape[1:])
    factor = block_tridiagonal.factorise(pairs, _pair_blocks)
    forward = lambda pressure: _operator(pressure, permeability)  # noqa: E731
    transpose = jax.linear_transpose(forward, jax.ShapeDtypeStruct(permeability.shape, permeability.dtype))
    nothing = jnp.zeros_like(permeability)

    def improved(pressure: Array) -> Array:
        balance, across_x, across_y = forward(pressure)
        (right,) = transpose((source - balance, -across_x, -across_y))
        right = right.reshape(num_points // 2, 2 * num_points)
        return pressure + block_tridiagonal.solve(factor, right).reshape(pressure.shape)

    pressure = nothing
    for _ in range(2):
        pressure = improved(pressure)
    return centred(pressure)


def _bands(matrix: np.ndarray) -> np.ndarray:
    """Entries M[i, i + offset] at [i, offset + REACH], zero beyond the ends."""
    wide = np.pad(matrix, ((0, 0), (REACH, REACH)))
    return np.stack([wide[row, row : row + 2 * REACH + 1] for row in range(len(matrix))])


def _later(values: Array, by: int) -> Array:
    """Entries i + by of the first axis in the place of entries i, zero beyond the ends."""
    wide = jnp.pad(values, [(REACH, REACH)] + [(0, 0)] * (values.ndim - 1))
    return wide[REACH + by : REACH + by + len(values)]


def _gram(bands: Float[Array, "line offset other"]) -> Float[Array, "line apart other"]:
    """Entries (M^T M)[i, i - apart] for apart from 0 to REACH, of the bands of M."""

    def entries(apart: int) -> Array:
        return sum(
            (_later(bands[:, REACH - e] * bands[:, REACH - apart - e], e) for e in range(-REACH, REACH + 1 - apart)),
            start=jnp.zeros_like(bands[:, 0]),
        )

    return jnp.stack([entries(apart) for apart in range(REACH + 1)], axis=1)


def _normal_bands(permeability: Float[Array, "x y"]) -> Float[Array, "x apart y offset"]:
    """A^T A between the nodes (x, y) and (x - apart, y + offset - REACH), the part of it that symmetry leaves.

    A = E + T,   E[(r, c), (s, c)] = across x,   T[(r, c), (r, d)] = along y;   the slopes add a tie at the ends
    A^T A = E^T E + T^T T + E^T T + T^T E
    """
    num_points, dtype = permeability.shape[0], permeability.dtype
    matrices = [closed_matrix(num_points, 1.0 / (num_points - 1), order) for order in (1, 2)]
    grows = [_along(matrices[0], permeability, axis) for axis in (0, 1)]
    first, second = (jnp.asarray(_bands(matrix), dtype)[:, :, None] for matrix in matrices)

    def of_line(coefficient: Array, growth: Array) -> Array:
        return -(second * coefficient[:, None] + first * growth[:, None])

    across = of_line(permeability, grows[0])  # [x, offset, y]
    along = of_line(permeability.T, grows[1].T)  # [y, offset, x]
    tie = _gram(first.at[1:-1].set(0.0))
    across_twice, along_twice = _gram(across) + tie, _gram(along) + tie

    def entries(apart: int, offset: int) -> Array:
        total = _later(across[:, REACH + apart] * along[:, REACH + offset].T, -apart)
        total = total + _later(along[:, REACH - offset] * across[:, REACH - apart].T, offset).T
        if offset == 0:
            total = total + across_twice[:, apart]
        if apart == 0:
            total = total + _later(along_twice[:, abs(offset)], max(offset, 0)).T
        return total

    offsets = range(-REACH, REACH + 1)
    return jnp.stack(
        [jnp.stack([entries(apart, offset) for offset in offsets], axis=-1) for apart in range(REACH + 1)], axis=1
    )


def _pair_blocks(bands: Float[Array, "2 apart y offset"]) -> tuple[Array, Array]:
    """Blocks of A^T A for a pair of grid rows: with itself and with the pair before; shape (2 y, 2 y)."""
    upper, lower = jax.vmap(jax.vmap(block_tridiagonal.dense))(bands)
    # of blocks on the diagonal only the lower triangle is read
    diagonal = jnp.block([[upper[0], jnp.zeros_like(upper[0])], [lower[1], lower[0]]])
    return diagonal, jnp.block([[upper[2], upper[1]], [lower[3], lower[2]]])


# ---- balance of fluxes around the nodes


def _face_flux(pressure: Array, permeability: Array, axis: int) -> Array:
    """Flux -K dp/dx through the faces between neighbouring nodes along an axis, K their mean."""
    spacing = 1.0 / (pressure.shape[0] - 1)
    first, last = (jnp.take(permeability, rows, axis) for rows in _neighbours(pressure.shape[0]))
    return -0.5 * (first + last) * jnp.diff(pressure, axis=axis) / spacing


def _neighbours(num_points: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(num_points - 1), np.arange(1, num_points)


def _cell_width(num_points: int) -> np.ndarray:
    """Widths of the cells around the nodes: half a spacing at both ends."""
    width = np.full(num_points, 1.0 / (num_points - 1))
    width[[0, -1]] *= 0.5
    return width


def nodal_residual(fields: Float[Array, "x y 2"], source: np.ndarray) -> Residuals:
    """Outflow of the cell around each node by its area, less what is pumped in; no flux through the boundary."""
    return {"balance": outflow(fields[..., 0], fields[..., 1]) - jnp.asarray(source, fields.dtype)}


def outflow(pressure: Float[Array, "x y"], permeability: Float[Array, "x y"]) -> Float[Array, "x y"]:
    """Outflow of the cell around each node by its area; cells on the edge are halves, nothing leaves the square."""
    width = jnp.asarray(_cell_width(pressure.shape[0]), pressure.dtype)
    total = jnp.zeros_like(pressure)
    for axis in (0, 1):
        flux = _face_flux(pressure, permeability, axis)
        change = jnp.diff(jnp.pad(flux, [(1, 1) if other == axis else (0, 0) for other in (0, 1)]), axis=axis)
        total = total + change / (width[:, None] if axis == 0 else width)
    return total


def frozen_balance(
    predicted: Float[Array, "x y 2"], clean: Float[Array, "x y 2"], source: np.ndarray
) -> Float[Array, "x y"]:
    """The balance around the nodes, pressure and permeability each taken from a clean example in turn, and the mean.

    Args:
      predicted: pressure and permeability.
      clean: of an example.
      source: f.
    Returns:
      what is missed, affine in what is predicted.
    """
    turns = outflow(predicted[..., 0], clean[..., 1]) + outflow(clean[..., 0], predicted[..., 1])
    return 0.5 * turns - jnp.asarray(source, predicted.dtype)


def solve_nodal(permeability: Float[Array, "x y"], source: Float[Array, "x y"]) -> Float[Array, "x y"]:
    """Pressure at which the fluxes balance in every cell, with mean zero; one step of refinement.

    Its slopes are solutions with the same factor, (A dp = df - dA p), not those of the elimination's steps.

    Args:
      permeability: K at the nodes of a square grid, positive.
      source: f, whose integral over the cells vanishes.
    Returns:
      p, shape of K.
    """
    num_points, dtype = permeability.shape[0], permeability.dtype
    spacing, width = 1.0 / (num_points - 1), jnp.asarray(_cell_width(num_points), dtype)
    # conductance of each face: mean K times the width of the face over the distance of the nodes
    down = 0.5 * (permeability[1:] + permeability[:-1]) * width / spacing
    right = 0.5 * (permeability[:, 1:] + permeability[:, :-1]) * width[:, None] / spacing
    above, under = jnp.pad(down, ((1, 0), (0, 0))), jnp.pad(down, ((0, 1), (0, 0)))
    before, after = jnp.pad(right, ((0, 0), (1, 0))), jnp.pad(right, ((0, 0), (0, 1)))
    own = jnp.stack([-before, above + under + before + after, -after], axis=-1)
    tied = own[0, 0, 1]  # a constant is left free: one node is tied to zero
    factor = block_tridiagonal.eliminate(own.at[0, 0, 1].add(tied), -above[..., None])
    area = width[:, None] * width

    def product(pressure: Array) -> Array:
        return (outflow(pressure, permeability) * area).at[0, 0].add(tied * pressure[0, 0])

    def refined(_: Any, right: Array) -> Array:
        pressure = block_tridiagonal.solve_eliminated(factor, right)
        return pressure + block_tridiagonal.solve_eliminated(factor, right - product(pressure))

    return centred(jax.lax.custom_linear_solve(product, source * area, refined, symmetric=True))


Solver = Callable[[Array, Array], Array]


def _with_pressure(solver: Solver, permeability: Array) -> Array:
    source = jnp.asarray(corner_source(len(permeability)), permeability.dtype)
    return jnp.stack([solver(permeability, source), permeability], axis=-1)


def _draw(solver: Solver, key: Array, **options: Any) -> Sample:
    return unconditional(_with_pressure(solver, _draw_permeability(key, **options)))


def _resolve(solver: Solver, fields: Array, condition: Array) -> Array:
    del condition
    return _with_pressure(solver, fields[..., 1])


def _residual(residual: Callable[[Array, np.ndarray], Residuals], fields: Array, condition: Array) -> Residuals:
    del condition
    return residual(fields, corner_source(len(fields)))


# ---- priors


def _frozen_terms(predicted: Array, clean: Array, condition: Array) -> Array:
    del condition
    return frozen_balance(predicted, clean, corner_source(len(predicted)))


def _draw_move(key: Array, num_points: int, length: float, num_modes: int) -> Bool[Array, "2"]:
    """Whether axes are exchanged, and whether the square is turned by a half."""
    able = np.array([keeps_pairs(karhunen_loeve(num_points, length, num_modes)), True])
    return jax.random.bernoulli(key, 0.5, (2,)) & able


def _move(element: Bool[Array, "2"], fields: Array, condition: Array) -> tuple[Array, Array]:
    exchanged, turned = element
    fields = jnp.where(exchanged, fields.swapaxes(0, 1), fields)
    # source and sink change places
    fields = jnp.where(turned, jnp.asarray([-1.0, 1.0], fields.dtype) * fields[::-1, ::-1], fields)
    return fields, condition  # which has no channels


OfFields = Callable[[Array, np.ndarray], Residuals]


def _make(
    name: str, residual: OfFields, unseen: OfFields, solver: Solver, options: dict, priors: Priors = NO_PRIORS
) -> Equations:
    num_points = options["num_points"]
    corner_source(num_points)  # refuses too few points
    return Equations(
        name=name,
        grid=Grid((num_points, num_points), (1.0, 1.0)),
        fields=("pressure", "permeability"),
        units=("1", "1"),
        residual=Bound(_residual, residual),
        draw=Bound(_draw, solver, **options),
        resolve=Bound(_resolve, solver),
        unseen=Bound(_residual, unseen),
        priors=priors,
    )


def make_darcy_kle(num_points: int = 64, length: float = 0.1, num_modes: int = 64) -> Equations:
    """Darcy flow as in the literature: the equation multiplied out, solved by least squares.

    Args:
      num_points: nodes along each side, even.
      length: correlation length of the log permeability.
      num_modes: modes of it that are kept.
    Returns:
      the equations; fields pressure and permeability, drawn in float64 where that is enabled.
    """
    options = {"num_points": num_points, "length": length, "num_modes": num_modes}
    return _make("darcy_kle", kle_residual, nodal_residual, solve_kle, options)


def make_darcy_nodal(num_points: int = 64, length: float = 0.1, num_modes: int = 64) -> Equations:
    """The same flow by balance of fluxes around the nodes.

    Args:
      num_points: nodes along each side.
      length: correlation length of the log permeability.
      num_modes: modes of it that are kept.
    Returns:
      the equations; fields pressure and permeability.
    """
    options = {"num_points": num_points, "length": length, "num_modes": num_modes}
    priors = Priors(
        # whose mean has no direction: half a turn changes the sign of the pressure
        symmetry=Symmetry("exchange and half turn of the square", Bound(_draw_move, **options), _move, mixed=((0,),)),
        feasibilities=(Feasibility("balance", "multilinear", _frozen_terms),),
    )
    return _make("darcy_nodal", nodal_residual, kle_residual, solve_nodal, options, priors)
