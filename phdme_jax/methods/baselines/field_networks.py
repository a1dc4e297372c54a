"""Baselines that learn fields' dynamics by a network from the observed trajectories: built, trained, rolled out.

All are trained as the conditional mean of a generator is: on windows, from their first state, in normalised units, in
stages of (window, steps, batch, learning rate) that are kept in the run folder.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from phdme_jax.methods.base import Normaliser
from phdme_jax.methods.baselines.fourier_operator import FourierOperator, init_operator, operate
from phdme_jax.methods.baselines.neural_dynamics import HamiltonianField, NeuralField, solve_field
from phdme_jax.methods.energy.losses import Example, PhysicsTerms, mean_loss
from phdme_jax.methods.energy.prior import CHUNK, Times
from phdme_jax.numerics.batching import in_chunks
from phdme_jax.systems.energy.base import Structure
from phdme_jax.training.stages import StageTrainer

Forecast = Callable[[Any, Any, int], Any]


class FieldNetwork(NamedTuple):
    """A network that forecasts fields.

    Attributes:
      forecast: (params, normalised state, number of frames) -> normalised trajectory.
      params: its parameters, float32.
      seconds: of training, by stage.
    """

    forecast: Forecast
    params: Any
    seconds: dict[str, float]


def make_network(
    name: str, structure: Structure, times: Times, normaliser: Normaliser, options: dict[str, Any], key: Any
) -> FieldNetwork:
    """The untrained network.

    Args:
      name: neural_ode, hnn or fno.
      structure: operators, of which the Hamiltonian network knows the flow, the others the parity of the fields.
      times: evenly spaced times of the frames.
      normaliser: field scales.
      options: the group of the baselines.
      key: random key.
    Returns:
      the network.
    Raises:
      ValueError: unknown name.
    """
    sizes = dict(options[name])
    scale = jnp.asarray(normaliser.scale, jnp.float32)
    if name == "fno":
        config = FourierOperator(structure.parity, **sizes)
        state = jnp.zeros((*structure.grid.points, scale.size), jnp.float32)
        return FieldNetwork(partial(operate, config), init_operator(config, state, key), {})
    field: Any
    if name == "neural_ode":
        # rates per frame of normalised states are of order one
        field = NeuralField(jnp.ones_like(scale), 0, **sizes, key=key, parity=structure.parity)
        unit, instants = jnp.ones_like(scale), np.arange(len(times), dtype=np.float32)
    elif name == "hnn":
        # dissipation starts small: a large one is stiff on a fine grid
        field = HamiltonianField(structure, scale, **sizes, key=key, dissipation=1e-3)
        unit, instants = scale, np.asarray(times, np.float32)
    else:
        raise ValueError(f"expected a network among neural_ode, hnn, fno, got {name!r}")
    leaves, static = eqx.partition(field, eqx.is_inexact_array)
    params, tree = jax.tree.flatten(leaves)

    def forecast(params: Any, state: Any, frames: int) -> Any:
        learned = eqx.combine(jax.tree.unflatten(tree, params), static)
        nothing = jnp.zeros((frames, 0), state.dtype)
        return solve_field(learned, state * unit, jnp.asarray(instants[:frames]), nothing, options["substeps"]) / unit

    return FieldNetwork(forecast, params, {})


def train_network(
    network: FieldNetwork, observed: Example, times: Times, stages: Any, start_noise: float, key: Any,
    trainer: StageTrainer,
) -> FieldNetwork:  # fmt: skip
    """Train on windows of the observed trajectories, stage by stage.

    Args:
      network: untrained.
      observed: normalised trajectories, leaves with a leading axis.
      times: of the frames.
      stages: of (window, steps, batch, learning rate).
      start_noise: standard deviation of noise on the start of a window.
      key: random key.
      trainer: keeps the stages.
    Returns:
      the trained network.
    """
    terms = PhysicsTerms(None, lambda state: state[:0], 0.0, 0.0)
    params = network.params
    for index, (window, *numbers) in enumerate(stages):
        loss = mean_loss(network.forecast, terms, times, window, start_noise)
        stage_key = jax.random.fold_in(key, index)
        params = trainer.run(f"window_{window}", loss, params, (observed, None), stage_key, *numbers)
    return FieldNetwork(network.forecast, params, trainer.seconds)


def network_forecasts(network: FieldNetwork, normaliser: Normaliser, initial: np.ndarray, frames: int) -> np.ndarray:
    """Forecasts from initial states, physical units, (n, time, *grid, field), float64; not finite where one blew up."""
    scale = np.asarray(normaliser.scale)
    roll = _roller(network.forecast, frames)
    normalised = in_chunks(partial(roll, network.params), CHUNK, (initial / scale).astype(np.float32))
    return normalised.astype(np.float64) * scale


@lru_cache
def _roller(forecast: Forecast, frames: int) -> Callable[[Any, Any], Any]:
    return jax.jit(lambda params, states: jax.vmap(lambda state: forecast(params, state, frames))(states))
