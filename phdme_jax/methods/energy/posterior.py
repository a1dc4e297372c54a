"""The posterior over energies: from observed trajectories, or from rows of one's own, by marginal likelihood.

Trajectories give rows, rows give the posterior.
"""

import time
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phdme_jax.gp import fit as gp_fit
from phdme_jax.gp.basis import Basis, Box, make_box
from phdme_jax.gp.observations import Observations, anchor_rows, concatenate, integral_rows
from phdme_jax.methods.base import Examples, Times, Values
from phdme_jax.systems.energy.base import Structure, constant_parts, injected


@dataclass(frozen=True)
class PriorOptions:
    """The group `prior` of the options.

    Attributes:
      main: basis sines per field.
      margin: half width of the basis' box in units of the largest excursion from rest.
      time_tests: test functions in time.
      substeps: integration steps between frames in rollouts.
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
    iterations: int = 150


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
    """
    basis, fields = make_basis(structure, options), jnp.asarray(examples.fields)
    box = make_box(fields, jnp.asarray(state_at_rest(structure, examples.fields, options)), options.margin)
    tests = (options.time_tests, options.space_tests)
    rows = _weak_rows(structure, basis, examples.times, tests, fields, jnp.asarray(examples.condition.inputs), box)
    return basis, *fit_rows(basis, box, rows, structure.parameters, iterations=options.iterations)


def state_at_rest(structure: Structure, states: Values, options: PriorOptions) -> Float[np.ndarray, "field"]:
    """Centre of the energy: that of the options, moved by the constant parts of the states, see `constant_parts`.

    The energy then varies over the deviations alone; an even one stays even about the centre of the options.
    """
    basis, states = make_basis(structure, options), np.asarray(states)
    centre = np.asarray(options.centre or (0.0,) * basis.num_fields, states.dtype)
    constant = constant_parts(structure, states - centre).reshape(-1, basis.num_fields).mean(axis=0)
    moved = np.array([basis.shape(field) != "even" for field in range(basis.num_fields)])
    return centre + np.where(moved, constant, 0).astype(states.dtype)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _weak_rows(
    structure: Structure,
    basis: Basis,
    times: Times,
    tests: tuple[int, int],
    states: Float[Array, "sample time *grid field"],
    inputs: Float[Array, "sample time port"],
    box: Box,
) -> Observations:
    """Rows of all trajectories, and the anchor of the gauge."""

    def of_one(trajectory: Array, driven: Array) -> Observations:
        supplied = supplied_rates(structure, driven) if structure.ports else None
        return integral_rows(basis, box, structure.flow, structure.parameters, trajectory, times, *tests, supplied)

    stacked = jax.lax.map(lambda pair: of_one(*pair), (states, inputs))
    design = jnp.moveaxis(stacked.design, 0, 1)
    design = jnp.reshape(design, (design.shape[0], -1, design.shape[-1]))
    rows = jax.tree.map(jnp.ravel, stacked)._replace(design=design)
    return concatenate([rows, anchor_rows(basis, box, len(structure.parameters))])


def fit_rows(
    basis: Basis,
    box: Box,
    rows: gp_fit.Rows,
    parameters: tuple[str, ...],
    start: gp_fit.Hyperparameters | gp_fit.Hyperprior | None = None,
    iterations: int = 150,
    tolerance: float = 1e-2,
) -> tuple[gp_fit.EnergyPosterior, float]:
    """The posterior of rows; see `phdme_jax.gp.fit.fit`. What has the same shapes is compiled once.

    Args:
      basis: sizes.
      box: where the basis lives.
      rows: observations.
      parameters: names of the dissipation parameters.
      start: logarithms from which the search starts, or a whole hyperprior; usual ones where None.
      iterations: of the search, at the most.
      tolerance: norm of the gradient that ends the search.
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
    values = [posterior.parameters[str(index)] for index in range(len(parameters))]
    return posterior._replace(parameters=dict(zip(parameters, values, strict=True))), seconds


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
