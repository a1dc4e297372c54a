"""The posterior over energies: from observed trajectories, or from rows of one's own, by marginal likelihood.

Trajectories give rows, rows give the posterior.
"""

import time
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phdme_jax.files import RunFailed
from phdme_jax.gp import fit as gp_fit
from phdme_jax.gp.basis import Basis, Box, make_box
from phdme_jax.gp.compression import CompressedObservations, compress
from phdme_jax.gp.observations import (
    IntervalTests,
    Observations,
    anchor_rows,
    concatenate,
    grid_tests,
    integral_rows,
    interval_tests,
)
from phdme_jax.methods.base import Examples, Values
from phdme_jax.systems.energy.base import Structure, constant_parts, injected


@dataclass(frozen=True)
class PriorOptions:
    """The group `prior` of the options.

    Attributes:
      main: basis sines per field.
      margin: half width of the basis' box in units of the largest excursion from rest.
      time_tests: test functions in time.
      substeps: of rollouts between frames; an integration step takes two, see `phdme_jax.gp.sampling.num_steps`.
      pair: basis sines per field of each pair, 0 for a separable energy.
      space_tests: test functions over the grid.
      centre: state at rest; zero where empty. Constant parts that the states have beside it move it.
      shapes: what is known of the energy per field, see `Basis`.
      iterations: of the search for hyperparameters, at the most.
    """

    main: int
    margin: float
    time_tests: int
    substeps: int
    pair: int = 0
    space_tests: int = 1
    centre: tuple[float, ...] = ()
    shapes: tuple[str, ...] = ()
    iterations: int = 1000


def make_basis(structure: Structure, options: PriorOptions) -> Basis:
    """The basis of energies of a structure."""
    return Basis(len(structure.fields), options.main, options.pair, options.shapes)


def fit_energy(
    structure: Structure, examples: Examples, options: PriorOptions
) -> tuple[Basis, gp_fit.EnergyPosterior, float]:
    """Fit the energy to observed states by weak-form rows in time and marginal likelihood.

    Args:
      structure: operators.
      examples: observed trajectories, float64 recommended; where there are ports, their inputs.
      options: sizes.
    Returns:
      the basis, the posterior, and the seconds that the fit ran, compilation apart.
    Raises:
      RunFailed: the frames do not resolve the motion.
    """
    basis, box, rows = observed_rows(structure, examples, options)
    return basis, *fit_rows(basis, box, rows, structure.parameters, iterations=options.iterations)


_anchor = jax.jit(anchor_rows, static_argnums=(0, 2))  # as one program instead of a hundred
# numbers in the rows that are made at once
_MOST = 2**22


def observed_rows(
    structure: Structure, examples: Examples, options: PriorOptions
) -> tuple[Basis, Box, CompressedObservations]:
    """What observed trajectories say about the energy, with the anchor of its gauge.

    Rows are made and compressed a few trajectories at a time: memory does not grow with their number.

    Args:
      structure: operators.
      examples: observed trajectories.
      options: sizes.
    Returns:
      the basis, the box around the states, and the rows.
    Raises:
      RunFailed: the frames do not resolve the motion.
    """
    basis, states = make_basis(structure, options), jnp.asarray(examples.fields)
    inputs, count = jnp.asarray(examples.condition.inputs), len(states)
    box = make_box(states, jnp.asarray(state_at_rest(structure, examples.fields, options)), options.margin)
    try:
        tests = interval_tests(examples.times, examples.fields, options.time_tests)
    except ValueError as error:
        raise RunFailed(f"no energy can be learned from these frames: {error}") from error
    build = partial(_weak_rows, structure, basis, options.space_tests, box, tests)
    rows_of_one = len(tests.change) * len(grid_tests(states.shape[2:-1], options.space_tests)) * basis.num_fields
    one = rows_of_one * (1 + len(structure.parameters)) * (basis.size + basis.num_fields)
    size = max(size for size in range(1, count + 1) if count % size == 0 and (size == 1 or size * one <= _MOST))
    parts = (build(states[start : start + size], inputs[start : start + size]) for start in range(0, count, size))
    anchor = _anchor(basis, box, len(structure.parameters))
    return basis, box, compress(concatenate([*parts, anchor]) if size == count else chain(parts, [anchor]))


def state_at_rest(structure: Structure, states: Values, options: PriorOptions) -> Float[np.ndarray, "field"]:
    """Centre of the energy: that of the options, moved by the constant parts of the states, see `constant_parts`.

    The energy then varies over the deviations alone; an even one stays even about the centre of the options.
    """
    basis, states = make_basis(structure, options), np.asarray(states)
    centre = np.asarray(options.centre or (0.0,) * basis.num_fields, states.dtype)
    constant = constant_parts(structure, states - centre).reshape(-1, basis.num_fields).mean(axis=0)
    moved = np.array([basis.shape(field) != "even" for field in range(basis.num_fields)])
    return centre + np.where(moved, constant, 0).astype(states.dtype)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _weak_rows(
    structure: Structure,
    basis: Basis,
    space_tests: int,
    box: Box,
    tests: IntervalTests,
    states: Float[Array, "sample time *grid field"],
    inputs: Float[Array, "sample time port"],
) -> Observations:
    """Rows of trajectories."""

    def of_one(trajectory: Array, driven: Array) -> Observations:
        supplied = supplied_rates(structure, driven) if structure.ports else None
        return integral_rows(basis, box, structure.flow, structure.parameters, trajectory, tests, space_tests, supplied)

    stacked = jax.lax.map(lambda pair: of_one(*pair), (states, inputs))
    design = jnp.moveaxis(stacked.design, 0, 1)
    design = jnp.reshape(design, (design.shape[0], -1, design.shape[-1]))
    return jax.tree.map(jnp.ravel, stacked)._replace(design=design)


def fit_rows(
    basis: Basis,
    box: Box,
    rows: gp_fit.Rows,
    parameters: tuple[str, ...],
    start: gp_fit.Hyperparameters | gp_fit.Hyperprior | None = None,
    iterations: int = 1000,
    tolerance: float = 1e-7,
) -> tuple[gp_fit.EnergyPosterior, float]:
    """The posterior of rows; see `phdme_jax.gp.fit.fit`. What has the same shapes is compiled once.

    Args:
      basis: sizes.
      box: where the basis lives.
      rows: observations.
      parameters: names of the dissipation parameters.
      start: logarithms from which the search starts, or a whole hyperprior; usual ones where None.
      iterations: of the search, at the most.
      tolerance: decrease of the objective still to be expected that ends the search [nats].
    Returns:
      the posterior, and the seconds that the fit ran, compilation apart.
    """
    if start is None:
        start = gp_fit.initial_hyperparameters(basis, box, len(parameters))
    leaves, tree = jax.tree.flatten((box, rows, start))
    shapes = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in map(jnp.asarray, leaves))
    compiled = _compiled(basis, len(parameters), iterations, tolerance, tree, shapes)
    arguments = jax.block_until_ready(jax.tree.unflatten(tree, list(map(jnp.asarray, leaves))))
    began = time.perf_counter()
    posterior = jax.block_until_ready(compiled(*arguments))
    seconds = time.perf_counter() - began
    named = {
        part: {name: values[str(index)] for index, name in enumerate(parameters)}
        for part in ("parameters", "spread")
        if (values := getattr(posterior, part))
    }
    return posterior._replace(**named), seconds


@lru_cache
def _compiled(
    basis: Basis, num_parameters: int, iterations: int, tolerance: float, tree: Any, shapes: tuple[Any, ...]
) -> Any:
    """A fit whose parameters are numbered, so that structures of other names share it."""
    parameters = tuple(map(str, range(num_parameters)))

    def learn(box: Box, rows: gp_fit.Rows, start: Any) -> gp_fit.EnergyPosterior:
        return gp_fit.fit(basis, box, rows, start, parameters, iterations, tolerance)

    return jax.jit(learn).lower(*jax.tree.unflatten(tree, shapes)).compile()


def supplied_rates(structure: Structure, inputs: Float[Array, "time port"]) -> Float[Array, "time *grid field"]:
    """Rates G u of inputs."""
    return jax.vmap(partial(injected, structure))(inputs)
