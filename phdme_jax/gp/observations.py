"""Observation rows: what measured states and rates say about the energy, linear in its weights.

Every row is the structure's operator (J - R(theta)) applied to grad h, at observed states: at one instant against a
measured rate, or integrated in time against a difference of states. The operator is affine in theta, so a row is kept
as one block for theta = 0 and one per parameter.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from phdme_jax.gp.basis import Basis, Box, feature_efforts
from phdme_jax.gp.quadrature import find_time_scale, noisy_interval_rule
from phdme_jax.numerics.arrays import one_type
from phdme_jax.numerics.quadrature import IntervalRule, integral_of_tests, interval_rule

Flow = Callable[[Array, dict[str, Array]], Array]
Values = Array | np.ndarray


class Observations(NamedTuple):
    """Rows `target = (design[0] + sum_k theta_k design[1 + k]) @ [weights, stiffness] + noise`.

    Attributes:
      target: observed right-hand side, shape (row,).
      design: blocks of the linear map, shape (1 + parameter, row, feature).
      group: noise group (the observed field) of each row, shape (row,).
      state_share: factor of the group's state-noise variance, shape (row,).
      rate_share: factor of the group's rate-noise variance, shape (row,).
      fixed: noise variance that is not learned, shape (row,).
    """

    target: Float[Array, "row"]
    design: Float[Array, "block row feature"]
    group: Int[Array, "row"]
    state_share: Float[Array, "row"]
    rate_share: Float[Array, "row"]
    fixed: Float[Array, "row"]


def _operator_blocks(
    flow: Flow, parameters: tuple[str, ...], features: Float[Array, "*grid field feature"]
) -> Float[Array, "block *grid field feature"]:
    """The operator's part for theta = 0 and its derivative in each parameter, applied to all features."""
    apply = jax.vmap(flow, in_axes=(-1, None), out_axes=-1)
    zero = jnp.zeros((), features.dtype)
    base = dict.fromkeys(parameters, zero)
    blocks = [apply(features, base)]
    for name in parameters:
        blocks.append(apply(features, base | {name: jnp.ones((), features.dtype)}) - blocks[0])
    return jnp.stack(blocks)


def _rows(target: Array, design: Array, group: Array, state_share: Array, rate_share: Array) -> Observations:
    return Observations(target, design, group, state_share, rate_share, jnp.zeros_like(target))


def derivative_rows(
    basis: Basis,
    box: Box,
    flow: Flow,
    parameters: tuple[str, ...],
    states: Float[Array, "frame grid field"],
    rates: Float[Array, "frame grid field"],
    sites: Int[Array, "site index"],
) -> Observations:
    """Rows of measured rates at chosen sites: x_t(z_i, t_k) = [(J - R) grad h(x(., t_k))]_i.

    Args:
      basis: sizes of the basis.
      box: where it lives.
      flow: (efforts, parameters) -> rates of the structure.
      parameters: names of its dissipation parameters.
      states: observed states, whole frames (a site's stencil needs its neighbours).
      rates: observed time derivatives of the same frames.
      sites: (frame, grid) index of each observed site, shape (site, 2); every field gives one row.
    Returns:
      site x field rows.
    """
    frames, points = sites[:, 0], sites[:, 1]

    def design_of(frame: Array, point: Array) -> Array:
        blocks = _operator_blocks(flow, parameters, feature_efforts(basis, box, states[frame]))
        return blocks[:, point]

    design = jax.lax.map(lambda site: design_of(site[0], site[1]), (frames, points), batch_size=16)
    num_fields = states.shape[-1]
    design = jnp.reshape(jnp.moveaxis(design, 1, 0), (1 + len(parameters), -1, design.shape[-1]))
    target = jnp.reshape(rates[frames, points], -1)
    group = jnp.tile(jnp.arange(num_fields), sites.shape[0])
    return _rows(target, design, group, jnp.zeros_like(target), jnp.ones_like(target))


class IntervalTests(NamedTuple):
    """Test functions in time on the intervals between frames; noise of the frames is uncorrelated between them.

    Attributes:
      change: weights of the differences of neighbouring frames, shape (test, interval).
      integral: weights of the rates at the frames in the tested integrals, shape (test, time) [time].
      state_share: variance of a tested change over that of the states' noise, shape (test,).
      rate_share: variance of a tested integral over that of the rates' error, shape (test,) [time^2].
    """

    change: Float[Values, "test interval"]
    integral: Float[Values, "test time"]
    state_share: Float[Values, " test"]
    rate_share: Float[Values, " test"]


# steps that differ by less than this share of their mean are even
_EVEN = 1e-6
# frames do not resolve the motion where the rule misses this share of an interval's variance
_COARSE = 0.1


def interval_tests(
    times: Sequence[float] | Float[Values, " time"], states: Float[Values, "sample time *grid field"], count: int = 64
) -> IntervalTests:
    """Test functions in time for `integral_rows`; runs on the host.

    Sines make the noise of neighbouring differences independent: test j on T - 1 intervals has the variance
    2 - 2 cos(j pi / T), at any times. Summation by parts shows that this is the weak form with test function
    sin(j pi t / T). Only the smoothest tests are kept: the noise of the states enters the operator through its
    derivatives, so the rough ones carry mostly error in the variables, which biases the damping low.

    The integral between even frames is that of a polynomial through the eight nearest, and its error that of one step.
    Between uneven frames it is a Gaussian process's, with the time scale and the noise of the states: what it lets
    through of the rates' error and what it misses add to the variance of each test. Intervals that it does not resolve
    are left out, and the sines are those of each run of intervals between them.

    Args:
      times: observation times, increasing.
      states: observed trajectories that share them.
      count: number of test functions, at the most.
    Returns:
      the tests.
    Raises:
      ValueError: times not increasing, or the frames resolve no interval.
    """
    rule, resolved, noise = frame_rule(times, states)
    change, state_share = _sines(_runs(resolved), len(resolved), count)
    integral = integral_of_tests(rule, change)
    if noise is None:
        rate_share = np.full_like(state_share, np.mean(np.diff(times)) ** 2)
    else:
        rate_share = np.sum(integral**2, axis=1) + change**2 @ rule.missed / noise
    return IntervalTests(change, integral, state_share, rate_share)


def frame_rule(
    times: Sequence[float] | Float[Values, " time"], states: Float[Values, "sample time *grid field"]
) -> tuple[IntervalRule, Bool[np.ndarray, " interval"], float | None]:
    """How to integrate between observed frames: by a polynomial where they are even, by a process where they are not.

    Args:
      times: observation times, increasing.
      states: observed trajectories that share them.
    Returns:
      the rule, which intervals the frames resolve, and the variance of the noise over that of the states, None where
      times are even.
    Raises:
      ValueError: times not increasing, or the frames resolve no interval.
    """
    nodes, rule = np.asarray(times, float), interval_rule(times)
    steps = np.diff(nodes)
    if np.max(np.abs(steps - np.mean(steps))) <= _EVEN * np.mean(steps):
        return rule, np.ones(len(steps), bool), None
    scale = find_time_scale(nodes, _series(states))
    rule = noisy_interval_rule(nodes, scale)
    typical, step = np.median(rule.missed), np.median(steps)
    if scale.noise >= 1.0 or typical > _COARSE * step**2:
        raise ValueError(
            "expected frames close enough to follow the motion between them, got times so uneven, or frames so noisy, "
            "that most intervals are not resolved; give more frames"
        )
    # what is missed beyond the noise of a usual interval, and beyond what others miss, would spoil every test
    return rule, rule.missed <= max(scale.noise * step**2, 4 * typical), scale.noise


def _series(states: Values) -> np.ndarray:
    """Every place of every trajectory as a series about its mean, fields scaled alike, shape (time, series)."""
    values = np.asarray(states, float)
    values = values - np.mean(values, axis=1, keepdims=True)
    size = np.sqrt(np.mean(values**2, axis=tuple(range(values.ndim - 1))))
    values = values[..., size > 0] / size[size > 0]
    return np.reshape(np.moveaxis(values, 1, 0), (values.shape[1], -1))


def _runs(chosen: np.ndarray) -> list[tuple[int, int]]:
    """Half-open ranges of neighbours that are all chosen."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], chosen.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _sines(runs: list[tuple[int, int]], num_intervals: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The smoothest sines of all runs of intervals, shape (test, interval), and the variances of the noise in them."""
    tests = [(start, stop, order) for start, stop in runs for order in range(1, 1 + min(count, stop - start))]
    variances = np.array([2 - 2 * np.cos(np.pi * order / (stop - start + 1)) for start, stop, order in tests])
    smoothest = np.argsort(variances, kind="stable")[:count]
    rows = np.zeros((len(smoothest), num_intervals))
    for row, test in zip(rows, smoothest, strict=True):
        start, stop, order = tests[test]
        total = stop - start + 1
        row[start:stop] = np.sqrt(2 / total) * np.sin(np.pi * order * np.arange(1, total) / total)
    return rows, variances[smoothest]


def integral_rows(
    basis: Basis,
    box: Box,
    flow: Flow,
    parameters: tuple[str, ...],
    states: Float[Array, "time *grid field"],
    tests: IntervalTests,
    space_tests: int = 32,
    supplied: Float[Array, "time *grid field"] | None = None,
) -> Observations:
    """Weak-form rows in time: differences of states against the integrated operator, no differentiation.

        x(t_{k+1}) - x(t_k) = int_{t_k}^{t_{k+1}} (J - R) grad h(x) + G u dt,

    tested with orthonormal cosines over the grid and with `interval_tests` in time.

    Args:
      basis: sizes of the basis.
      box: where it lives.
      flow: (efforts, parameters) -> rates of the structure.
      parameters: names of its dissipation parameters.
      states: observed states at all grid points.
      tests: test functions in time, at the times of the states.
      space_tests: number of test functions along each axis of the grid.
      supplied: rates G u at the observation times, None where nothing is put in.
    Returns:
      time test x space test x field rows, states' noise uncorrelated between rows.
    """
    box, states, supplied = one_type(box, states, supplied)
    grid, num_fields = states.shape[1:-1], states.shape[-1]
    change, integral, state_share, rate_share = (jnp.asarray(leaf, states.dtype) for leaf in tests)
    cosines = jnp.asarray(grid_tests(grid, space_tests), states.dtype)

    def tested(values: Array) -> Array:
        """Space tests of values (batch, *grid, field, ...)."""
        flat = jnp.reshape(values, (values.shape[0], -1, *values.shape[1 + len(grid) :]))
        return jnp.moveaxis(jnp.tensordot(cosines, flat, axes=[[1], [1]]), 0, 1)

    def frame(state: Array) -> Array:
        return tested(_operator_blocks(flow, parameters, feature_efforts(basis, box, state)))

    design = _weighted_sum(integral, frame, states)
    design = jnp.reshape(jnp.moveaxis(design, 1, 0), (design.shape[1], -1, design.shape[-1]))
    target = jnp.tensordot(change, tested(jnp.diff(states, axis=0)), axes=1)
    if supplied is not None:
        target = target - jnp.tensordot(integral, tested(supplied), axes=1)
    rows_per_test = cosines.shape[0] * num_fields
    group = jnp.tile(jnp.arange(num_fields), len(change) * cosines.shape[0])
    shares = (jnp.repeat(share, rows_per_test) for share in (state_share, rate_share))
    return _rows(jnp.reshape(target, -1), design, group, *shares)


def _weighted_sum(weights: Array, function: Callable[[Array], Array], values: Array) -> Array:
    """`weights @ [function(values[t])]` over time, a few frames at a time, so that memory does not grow with them."""
    num_times = len(values)
    blocks = -(-num_times // 32)
    size = -(-num_times // blocks)
    padding = [(0, blocks * size - num_times)]
    values = jnp.pad(values, padding + [(0, 0)] * (values.ndim - 1), mode="edge")
    weights = jnp.moveaxis(jnp.reshape(jnp.pad(weights, [(0, 0), *padding]), (-1, blocks, size)), 1, 0)

    def add(total: Array, item: tuple[Array, Array]) -> tuple[Array, None]:
        weight, part = item
        return total + jnp.tensordot(weight, jax.lax.map(function, part), axes=1), None

    shape = jax.eval_shape(function, values[0]).shape
    start = jnp.zeros((weights.shape[1], *shape), values.dtype)
    return jax.lax.scan(add, start, (weights, jnp.reshape(values, (blocks, size, *values.shape[1:]))))[0]


class TimeTests(NamedTuple):
    """Test functions w(t) that vanish at their ends with w', as quadrature weights on the sampling times.

    Attributes:
      value: weights of w, shape (test, time) [time].
      slope: of w', shape (test, time) [1].
      curvature: of w'', shape (test, time) [1/time].
    """

    value: Float[Array, "test time"]
    slope: Float[Array, "test time"]
    curvature: Float[Array, "test time"]


def displacement_rows(
    basis: Basis,
    box: Box,
    flow: Flow,
    parameters: tuple[str, ...],
    states: Float[Array, "time grid field"],
    time_tests: TimeTests,
    space_tests: Float[Array, "shape grid"],
) -> Observations:
    """Weak-form rows of a measured displacement s, where field 0 is p = s_t, with the energy p^2/2; no data derivative.

        int w'' <g, s> dt = int w <g, [(J - R) (0, e_q)]_p> dt - int w' <g, [(J - R) (s, 0)]_p> dt

    Two integrations by parts move both time derivatives of s onto w, and one moves that of e_p = s_t, in which the flow
    is linear. Each space test is a noise group of its own.

    Args:
      basis: sizes of the basis; the shape of field 0 is "known".
      box: where it lives.
      flow: (efforts, parameters) -> rates of the structure.
      parameters: names of its dissipation parameters.
      states: displacement in the place of the momentum, then the other fields.
      time_tests: test functions in time.
      space_tests: test functions g on the grid, quadrature weights included.
    Returns:
      time test x space test rows.
    Raises:
      ValueError: the energy of field 0 is not known.
    """
    if basis.shape(0) != "known":
        raise ValueError(f"expected the shape 'known' for field 0, the momentum, got {basis.shape(0)!r}")
    box, states, time_tests, space_tests = one_type(box, states, time_tests, space_tests)

    def frame(state: Array) -> Array:
        features = feature_efforts(basis, box, state)
        kinetic = features.at[:, 1:].set(0.0)
        halves = jnp.stack([_operator_blocks(flow, parameters, part) for part in (features - kinetic, kinetic)])
        return jnp.einsum("sg,kbgm->kbsm", space_tests, halves[:, :, :, 0])

    def accumulate(total: Array, item: tuple[Array, Array, Array]) -> tuple[Array, None]:
        state, value, slope = item
        elastic, kinetic = frame(state)
        return total + value[:, None, None, None] * elastic - slope[:, None, None, None] * kinetic, None

    _, num_blocks, num_shapes, size = jax.eval_shape(frame, states[0]).shape
    count = time_tests.value.shape[0]
    start = jnp.zeros((count, num_blocks, num_shapes, size), states.dtype)
    design, _ = jax.lax.scan(accumulate, start, (states, time_tests.value.T, time_tests.slope.T))
    design = jnp.reshape(jnp.moveaxis(design, 1, 0), (num_blocks, -1, size))
    target = jnp.reshape(time_tests.curvature @ states[..., 0] @ space_tests.T, -1)
    group = jnp.tile(jnp.arange(num_shapes), count)
    return _rows(target, design, group, jnp.ones_like(target), jnp.zeros_like(target))


def cosine_tests(num_points: int, count: int) -> np.ndarray:
    """The smoothest orthonormal cosines on a grid (DCT-II rows), shape (test, points)."""
    index = np.arange(num_points)
    rows = np.cos(np.pi * np.outer(np.arange(min(count, num_points)), index + 0.5) / num_points)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def grid_tests(grid: tuple[int, ...], count: int) -> np.ndarray:
    """Products of `cosine_tests` over the axes of a grid, flattened, shape (test, points); one without axes."""
    tests = np.ones((1, 1))
    for num_points in grid:
        line = cosine_tests(num_points, count)
        tests = np.einsum("ap,bq->abpq", tests, line).reshape(len(tests) * len(line), -1)
    return tests


def anchor_rows(basis: Basis, box: Box, num_parameters: int, deviation: float = 1e-6) -> Observations:
    """Gauge anchor grad h = 0 at rest; affine parts of h are invisible to the operators.

    Args:
      basis: sizes of the basis.
      box: its centre is the state at rest.
      num_parameters: number of dissipation parameters.
      deviation: standard deviation with which the anchor holds [effort].
    Returns:
      one row per field.
    """
    features = feature_efforts(basis, box, box.centre)
    design = jnp.concatenate([features[None], jnp.zeros((num_parameters, *features.shape), features.dtype)])
    zero = jnp.zeros_like(box.centre)
    group = jnp.arange(basis.num_fields)
    return Observations(zero, design, group, zero, zero, jnp.full_like(zero, deviation**2))


def concatenate(parts: list[Observations]) -> Observations:
    """Stack several sets of rows."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1 if leaves[0].ndim == 3 else 0), *parts)
