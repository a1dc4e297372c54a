"""The learned energy of particles' pairs, integrated: a Gaussian process of the distance, see `gp.pair_energy`."""

import dataclasses
import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from phdme_jax.files import InputError
from phdme_jax.gp.basis import Energy
from phdme_jax.gp.pair_energy import PairOptions, PairPosterior, learn_pair_energy, pair_basis, pair_pull
from phdme_jax.gp.sampling import drawn_system
from phdme_jax.methods.base import Fitted, Host, Model, Options, Task
from phdme_jax.methods.particles.steps import Known, continued, known, particle_examples
from phdme_jax.systems.equations.base import Equations
from phdme_jax.systems.particles.base import coupling_of, motion_of
from phdme_jax.systems.particles.bodies import composed_leapfrog


def fit_pairs(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """Fit the energy of a pair in closed form but for its hyperparameters; samples are rollouts of drawn energies.

    Args:
      task: of particles, first frames given; all frames of the training trajectories are learned from.
      options: the group `prior`: `substeps` of rollouts between frames, and the sizes of `PairOptions`.
      host: not used.
      teacher: none.
      key: not used.
    Returns:
      the method; its parameters are the posterior, seconds include compilation.
    """
    del host, teacher, key
    posterior, sizes, seconds = _learned(task, options)
    return Fitted(_model(task.problem, *sizes, posterior.nearest.dtype.name), posterior, {"fit": seconds})


def _learned(task: Task, options: Options) -> tuple[PairPosterior, tuple[int, int], float]:
    """The posterior, the sines of its basis and substeps of rollouts, and the seconds it took."""
    problem: Equations = task.problem
    sizes = dict(options["prior"])
    substeps = sizes.pop("substeps")
    chosen, data, began = PairOptions(**sizes), particle_examples(task), time.perf_counter()
    posterior = learn_pair_energy(chosen, problem.grid.spacing[0], *motion_of(data.fields), data.coupling)
    posterior = jax.block_until_ready(posterior)
    return posterior, (chosen.main, substeps), time.perf_counter() - began


class Rolled(NamedTuple):
    """Parameters of a generator whose first frames a learned energy continues."""

    generator: Any
    posterior: PairPosterior


def fit_generated(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """The first frame of each of the teacher's samples, continued by the learned energy of pairs.

    Args:
      task: of particles, no frames given; all frames of the training trajectories are learned from.
      options: the group `prior`, see `fit_pairs`.
      host: not used.
      teacher: a generator of whole trajectories.
      key: not used.
    Returns:
      the method; the energy is the posterior's mean.
    Raises:
      InputError: frames are given, which `gp_rollout` continues.
    """
    del host, key
    if task.problem.given_frames:
        raise InputError(
            f"generate_then_roll generates first frames, and those of {task.problem.name} are given; ask gp_rollout"
        )
    assert teacher is not None
    posterior, (main, substeps), seconds = _learned(task, options)
    generator, problem = teacher.model, dataclasses.replace(task.problem, given_frames=1)
    dtype = posterior.nearest.dtype

    def prepare(params: Rolled, condition: Array) -> tuple[Any, Array]:
        return generator.prepare(params.generator, condition), condition.astype(dtype)

    def draw(params: Rolled, prepared: tuple[Any, Array], latent: Array, key: Array) -> Array:
        fields = generator.draw(params.generator, prepared[0], latent, key).astype(dtype)
        told = Known(fields[:1], coupling_of(fields, prepared[1]))
        return roll_out(problem, main, substeps, params.posterior, params.posterior.energy.mean, told)

    model = Model(prepare=prepare, draw=draw, latent=generator.latent, num_calls=generator.num_calls)
    return Fitted(model, Rolled(teacher.params, posterior), {"fit": seconds})


def roll_out(
    problem: Equations, main: int, substeps: int, posterior: PairPosterior, energy: Energy, told: Known
) -> Float[Array, "time particle field"]:
    """The given frames continued by leapfrog under an energy of pairs.

    Args:
      problem: of particles, first frames given.
      main: sines of the basis.
      substeps: of the leapfrog between frames.
      posterior: coordinate and distances of the energy.
      energy: of the posterior.
      told: of one condition.
    Returns:
      the whole trajectory.
    """
    # what is evaluated does not depend on the symmetry of the basis
    pull = partial(pair_pull, pair_basis(main, logarithmic=True), energy, posterior)
    dt = problem.grid.spacing[0] / substeps
    return continued(problem, lambda coupling: partial(composed_leapfrog, partial(pull, coupling), dt, substeps), told)


def _model(problem: Equations, main: int, substeps: int, dtype: str) -> Model:
    rolled = partial(roll_out, problem, main, substeps)

    def prepare(posterior: PairPosterior, condition: Array) -> Known:
        return jax.tree.map(lambda leaf: leaf.astype(dtype), known(problem, condition))

    def draw(posterior: PairPosterior, told: Known, latent: Array, key: Array) -> Array:
        del key
        return rolled(posterior, drawn_system(posterior.energy, latent)[0], told)

    return Model(
        prepare=prepare,
        draw=draw,
        latent=lambda key: jax.random.normal(key, (main,), jnp.dtype(dtype)),
        mean=lambda posterior, told: rolled(posterior, posterior.energy.mean, told),
        num_calls=substeps * (problem.grid.points[0] - problem.given_frames),
    )
