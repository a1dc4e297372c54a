"""Energies of pairs of particles as a Gaussian process of their distance, from frames of positions and velocities.

    x_i'' = -sum_j c_ij phi'(r_ij) (x_i - x_j) / r_ij,     phi(r) = h(s),   s = r or s = log r

with masses one and the coupling c of each pair given. h is an energy density of `gp.basis` in one field, even about
r = 0 where s = r, as a smooth energy of a pair is. Rows are balances of momentum over the time between two frames,

    v_i(t_{l+1}) - v_i(t_l) = -sum_j c_ij int phi'(r_ij) (x_i - x_j) / r_ij dt,

linear in the weights of h, by Gauss's rule along the polynomial through positions and velocities of the four frames
around (of degree seven). The error of that path is not known; the nearer two particles come, the larger it is. The
difference to the path through two frames alone, over the distance of a pair, parts the rows of particles into groups by
decades, each with a noise of its own; above the largest, rows are left out. Of the two coordinates the one of larger
marginal likelihood is taken: a smooth energy is short in r, a singular one in log r.
Source: Lu, Zhong, Tang, Maggioni (2019), Proc. Natl. Acad. Sci. 116, 14424, for laws of pairs from trajectories by
least squares; the Gaussian process, the balance over each interval and the groups of noise are ours.
"""

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.polynomial import legendre, polynomial

from phdme_jax.gp.basis import Basis, Box, Energy, efforts, feature_efforts
from phdme_jax.gp.compression import CompressedGroup, CompressedObservations
from phdme_jax.gp.fit import EnergyPosterior, fit, initial_hyperparameters
from phdme_jax.gp.observations import Observations
from phdme_jax.numerics.quadrature import nearest_nodes

LOGARITHMIC = (False, True)  # the coordinates that are tried
TOUCHING = 1e-6  # distance, in units of the largest, below which an even energy is not asked


@dataclass(frozen=True)
class PairOptions:
    """Sizes of the fit.

    Attributes:
      main: sines of the basis.
      margin: width of the box of the basis in units of the range of the coordinate.
      points: of Gauss's rule between two frames.
      resolved: difference between the paths through four frames and through two, over the distance of a pair, above
        which rows are left out.
      groups: of rows with a noise of their own, a decade of that difference each, smaller ones in the last.
      iterations: of the search for hyperparameters, at the most.
    """

    main: int = 64
    margin: float = 1.2
    points: int = 8
    resolved: float = 0.3
    groups: int = 5
    iterations: int = 300


class PathRule(NamedTuple):
    """Positions between two frames, linear in positions and velocities of frames around.

    Attributes:
      nodes: frames used for each interval, shape (interval, node).
      of_position: their weights, shape (interval, point, node).
      of_velocity: those of the velocities, shape (interval, point, node) [time].
      weights: of Gauss's rule, shape (point,) [time].
    """

    nodes: Int[np.ndarray, "interval node"]
    of_position: Float[np.ndarray, "interval point node"]
    of_velocity: Float[np.ndarray, "interval point node"]
    weights: Float[np.ndarray, "point"]


class PairPosterior(NamedTuple):
    """What is learned of the energy of a pair.

    Attributes:
      energy: posterior over h.
      logarithmic: whether h is one of log r.
      nearest: distance below which the force stays as it is there: the smallest that was learned from where h is one of
        log r, nearly zero else, as an even energy is smooth there.
      farthest: largest distance; the force stays as it is there beyond it.
    """

    energy: EnergyPosterior
    logarithmic: Bool[Array, ""]
    nearest: Float[Array, ""]
    farthest: Float[Array, ""]


def path_rule(num_frames: int, interval: float, num_nodes: int, num_points: int) -> PathRule:
    """The polynomial through positions and velocities of the frames nearest to each interval, at Gauss's points.

    Args:
      num_frames: frames, evenly spaced.
      interval: time between frames.
      num_nodes: frames used for each interval (clipped to the number of frames); the degree is twice it less one.
      num_points: of Gauss's rule in each interval.
    Returns:
      the rule.
    """
    index = nearest_nodes(num_frames, num_nodes)
    abscissae, gauss = legendre.leggauss(num_points)
    degree = 2 * index.shape[1]

    def powers(times: np.ndarray) -> np.ndarray:
        return polynomial.polyvander(times, degree - 1)

    found = []
    for number, nodes in enumerate(index):
        apart = (nodes - number - 0.5).astype(float)
        slopes = np.arange(degree) * np.pad(powers(apart), ((0, 0), (1, 0)))[:, :-1]
        found.append(powers(0.5 * abscissae) @ np.linalg.inv(np.concatenate([powers(apart), slopes])))
    of_position, of_velocity = np.split(np.stack(found), 2, axis=-1)
    return PathRule(index, of_position, interval * of_velocity, 0.5 * interval * gauss)


def path_between(
    rule: PathRule, position: Float[Array, "time particle axis"], velocity: Float[Array, "time particle axis"]
) -> Float[Array, "interval point particle axis"]:
    """Positions at the points of each interval."""
    parts = zip((rule.of_position, rule.of_velocity), (position, velocity), strict=True)
    return sum(jnp.einsum("lqk,lkia->lqia", jnp.asarray(w, x.dtype), x[rule.nodes]) for w, x in parts)  # type: ignore[return-value]


def incidence(count: int) -> Float[np.ndarray, "particle pair"]:
    """One where a particle is the first of a pair, minus one where it is the second, in the order of `triu_indices`."""
    first, second = np.triu_indices(count, 1)
    return np.eye(count)[:, first] - np.eye(count)[:, second]


class _Pairs(NamedTuple):
    """Pairs along the paths between frames: distance, direction, coupling, and how well the frames tell the path.

    `doubt` is the largest difference of two paths over the distance, zero of pairs that are not coupled.
    """

    distance: Float[Array, "interval point pair"]
    direction: Float[Array, "interval point pair axis"]
    coupling: Float[Array, "pair"]
    doubt: Float[Array, "interval pair"]


def _pairs(rules: tuple[PathRule, PathRule], position: Array, velocity: Array, coupling: Array) -> _Pairs:
    signs, upper = incidence(position.shape[1]), np.triu_indices(position.shape[1], 1)
    fine, coarse = (jnp.einsum("ip,lqia->lqpa", signs, path_between(rule, position, velocity)) for rule in rules)
    distance = jnp.maximum(jnp.linalg.norm(fine, axis=-1), jnp.finfo(fine.dtype).tiny)
    doubt = jnp.max(jnp.linalg.norm(fine - coarse, axis=-1) / distance, axis=1)
    return _Pairs(distance, fine / distance[..., None], coupling[upper], jnp.where(coupling[upper] != 0, doubt, 0.0))


def _coordinate(logarithmic: Bool[Array, ""] | bool, distance: Array) -> tuple[Array, Array]:
    """s and ds/dr."""
    return jnp.where(logarithmic, jnp.log(distance), distance), jnp.where(logarithmic, 1 / distance, 1.0)


def _momentum_rows(
    basis: Basis,
    box: Box,
    logarithmic: bool,
    bounds: tuple[Array, Array],
    weights: Array,
    pairs: _Pairs,
    velocity: Float[Array, "time particle axis"],
) -> Float[Array, "interval particle axis feature_and_target"]:
    """Design and, last, target of a trajectory."""
    signs = incidence(velocity.shape[1])
    place, slope = _coordinate(logarithmic, jnp.clip(pairs.distance, *bounds))
    features = feature_efforts(basis, box, place[..., None])[..., 0, :]
    force = jnp.einsum("q,lqp,lqpa,lqpf,p->lpaf", weights, slope, pairs.direction, features, pairs.coupling)
    design = -jnp.einsum("ip,lpaf->liaf", signs, force)
    return jnp.concatenate([design, jnp.diff(velocity, axis=0)[..., None]], axis=-1)


def _groups(options: PairOptions, pairs: _Pairs) -> Bool[Array, "group interval particle"]:
    """Of which group the rows of a particle are, by the pair of its own that is told worst; of none where too badly."""
    touches = np.abs(incidence(_count(pairs.doubt.shape[1]))) > 0
    doubt = jnp.max(jnp.where(touches, pairs.doubt[:, None], 0.0), axis=-1)
    edges = options.resolved * np.append(10.0 ** -np.arange(options.groups), -1.0)
    return jnp.stack([(doubt <= high) & (doubt > low) for high, low in pairwise(edges)])


def _count(pairs: int) -> int:
    """Number of particles of a number of pairs."""
    return (1 + math.isqrt(1 + 8 * pairs)) // 2


def _folded(roots: Float[Array, "group feature feature"], counts: Float[Array, "group"]) -> CompressedObservations:
    """The triangular factors of the rows of each group, each in the place of these rows."""
    dtype, rank = roots.dtype, roots.shape[1]
    zero, one = jnp.zeros((1,), dtype), jnp.ones((1,), dtype)
    squares = jnp.asarray(np.eye(rank)[np.tril_indices(rank)][None], dtype)
    groups = tuple(
        CompressedGroup(
            target=root[:, -1],
            design=root[None, :, :-1],
            squares=squares,
            count=count[None],
            reference=one,
            group=jnp.asarray(number),
            state_share=zero,
            rate_share=one,
            fixed=zero,
        )
        for number, (root, count) in enumerate(zip(roots, counts, strict=True))
    )
    nothing = jnp.zeros((0,), dtype)
    rest = Observations(nothing, jnp.zeros((1, 0, rank - 1), dtype), jnp.zeros((0,), int), nothing, nothing, nothing)
    return CompressedObservations(groups, rest)


def pair_basis(main: int, logarithmic: bool) -> Basis:
    """The basis of h: even about the distance zero, or without a symmetry in its logarithm."""
    return Basis(1, main, 0, ("free" if logarithmic else "even",))


@partial(jax.jit, static_argnums=(0, 1))
def learn_pair_energy(
    options: PairOptions,
    interval: float,
    position: Float[Array, "sample time particle axis"],
    velocity: Float[Array, "sample time particle axis"],
    coupling: Float[Array, "sample particle particle"],
) -> PairPosterior:
    """Fit the energy of a pair by marginal likelihood of length scale, amplitude and noise.

    Rows are folded into one triangular factor, trajectory by trajectory: time is linear in their number, memory does
    not depend on it.

    Args:
      options: sizes.
      interval: time between frames.
      position: of the frames; float64 is recommended.
      velocity: of the frames.
      coupling: of each pair, symmetric.
    Returns:
      the posterior.
    """
    fine, coarse = (path_rule(position.shape[1], interval, nodes, options.points) for nodes in (4, 2))
    rules = fine, coarse
    trajectories = (position, velocity, coupling)

    def extent(one: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        pairs = _pairs(rules, *one)
        seen = ((pairs.doubt <= options.resolved) & (pairs.coupling != 0))[:, None]
        far = jnp.where(seen, pairs.distance, 0.0)
        return jnp.min(jnp.where(seen, pairs.distance, jnp.inf)), jnp.max(far)

    nearest, farthest = jax.lax.map(extent, trajectories)
    bounds = jnp.min(nearest), jnp.max(farthest)
    unit = jnp.sqrt(jnp.mean(velocity**2))
    found = [_learn(options, rules, bounds, unit, trajectories, logarithmic) for logarithmic in LOGARITHMIC]
    better = found[1].objective < found[0].objective
    chosen = jax.tree.map(partial(jnp.where, better), found[1], found[0])
    return PairPosterior(chosen, better, jnp.where(better, bounds[0], TOUCHING * bounds[1]), bounds[1])


def _learn(
    options: PairOptions,
    rules: tuple[PathRule, PathRule],
    bounds: tuple[Array, Array],
    unit: Array,
    trajectories: tuple[Array, Array, Array],
    logarithmic: bool,
) -> EnergyPosterior:
    """The posterior of one coordinate; its noise is in units of `unit`, a velocity, over the half width of the box."""
    basis, (nearest, farthest) = pair_basis(options.main, logarithmic), bounds
    lowest = jnp.log(nearest) if logarithmic else -farthest
    highest = jnp.log(farthest) if logarithmic else farthest
    box = Box(0.5 * (lowest + highest)[None], 0.5 * options.margin * (highest - lowest)[None])
    weights = jnp.asarray(rules[0].weights, nearest.dtype)

    def fold(carried: tuple[Array, Array], one: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], None]:
        roots, counts = carried
        pairs = _pairs(rules, *one)
        rows = _momentum_rows(basis, box, logarithmic, bounds, weights, pairs, one[1])
        groups = _groups(options, pairs)
        # rows of other groups are zeros, which change no triangular factor
        chosen = jnp.where(groups[..., None, None], rows, 0.0).reshape(options.groups, -1, rows.shape[-1])
        roots = jnp.linalg.qr(jnp.concatenate([roots, chosen], axis=1), mode="r")
        return (roots, counts + rows.shape[2] * jnp.sum(groups, axis=(1, 2))), None

    size, scale = basis.size + 2, box.half_width[0] / unit
    start = jnp.zeros((options.groups, size, size), nearest.dtype), jnp.zeros((options.groups,), nearest.dtype)
    (roots, counts), _ = jax.lax.scan(fold, start, trajectories)
    prior = initial_hyperparameters(basis, box, 0)
    noise = jnp.broadcast_to(prior.rate_noise, (options.groups,))
    prior = prior._replace(state_noise=noise, rate_noise=noise)
    # noise below a fraction of the half width is not resolved, of either coordinate then the same of the velocities
    found = fit(basis, box, _folded(scale * roots, counts), prior, (), max_iterations=options.iterations)
    return found._replace(objective=found.objective - jnp.sum(counts) * jnp.log(scale))


def pair_slope(
    basis: Basis, energy: Energy, posterior: PairPosterior, distance: Float[Array, "*pair"]
) -> Float[Array, "*pair"]:
    """phi' at some distances; of distances outside of those learned from, that at the end of them.

    Args:
      basis: sizes.
      energy: h, such as `posterior.energy.mean`.
      posterior: its coordinate and the distances learned from.
      distance: of pairs.
    Returns:
      slope of the energy, of the shape of the distances.
    """
    place, slope = _coordinate(posterior.logarithmic, jnp.clip(distance, posterior.nearest, posterior.farthest))
    return efforts(basis, energy, place[..., None])[..., 0] * slope


def pair_pull(
    basis: Basis,
    energy: Energy,
    posterior: PairPosterior,
    coupling: Float[Array, "particle particle"],
    position: Float[Array, "particle axis"],
) -> Float[Array, "particle axis"]:
    """Acceleration of each particle, masses one; of all together none, to rounding.

    Args:
      basis: sizes.
      energy: h.
      posterior: its coordinate and the distances learned from.
      coupling: of each pair, symmetric.
      position: of the particles.
    Returns:
      the accelerations.
    """
    signs, upper = incidence(len(position)), np.triu_indices(len(position), 1)
    between = jnp.asarray(signs.T, position.dtype) @ position
    square = jnp.sum(between**2, axis=-1, keepdims=True)
    distance = jnp.sqrt(jnp.maximum(square, jnp.finfo(square.dtype).tiny))
    force = coupling[upper][:, None] * pair_slope(basis, energy, posterior, distance) * between / distance
    return -jnp.asarray(signs, position.dtype) @ force
