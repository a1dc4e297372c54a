"""Networks that learn the motion from the observed trajectories: Hamiltonian, NeuralODE, Fourier operator.

On a grid all are trained as the conditional mean of a generator is: on windows, from their first state, in normalised
units, in stages of (window, steps, batch, learning rate). Where the group `baselines` holds `training`, a single
trajectory without a grid is learned instead, see `phdme_jax.methods.baselines.windows`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from phdme_jax.files import InputError
from phdme_jax.methods.base import (
    Fitted,
    Host,
    Model,
    Normaliser,
    Options,
    Start,
    Task,
    Times,
    fit_normaliser,
    mean_model,
)
from phdme_jax.methods.baselines.fourier_operator import FourierOperator, init_operator, operate
from phdme_jax.methods.baselines.neural_dynamics import (
    FieldFactory,
    HamiltonianField,
    NeuralField,
    field_factory,
    solve_field,
)
from phdme_jax.methods.baselines.windows import WindowOptions, fit_windows
from phdme_jax.methods.energy.losses import Example, PhysicsTerms, mean_loss
from phdme_jax.methods.energy.options import Stage, cut_windows
from phdme_jax.systems.energy.base import Structure, System

Sizes = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class FieldNetwork:
    """A network that forecasts fields in normalised units.

    Attributes:
      init: (scale of the fields, key) -> parameters.
      forecast: (params, state, number of frames) -> trajectory.
    """

    init: Callable[[Array, Array], PyTree]
    forecast: Callable[[PyTree, Array, int], Array]


Loss = Callable[[PyTree, Any, Array], tuple[Array, dict[str, Array]]]
Build = Callable[[Structure, Times, Sizes, int], FieldNetwork]


class NetworkParams(NamedTuple):
    """Arrays of a trained network: units of the fields, and its own parameters."""

    normaliser: Normaliser
    network: PyTree


@lru_cache
def _fourier(structure: Structure, times: Times, sizes: Sizes, substeps: int) -> FieldNetwork:
    """From frame to frame."""
    del times, substeps
    config = FourierOperator(structure.parity, **dict(sizes))

    def init(scale: Array, key: Array) -> PyTree:
        return init_operator(config, jnp.zeros((*structure.grid.points, scale.size), scale.dtype), key)

    return FieldNetwork(init, partial(operate, config))


@lru_cache
def _neural(structure: Structure, times: Times, sizes: Sizes, substeps: int) -> FieldNetwork:
    """Rates per frame, of neighbours: those of normalised states are of order one."""

    def make(scale: Array, key: Array) -> NeuralField:
        return NeuralField(jnp.ones_like(scale), 0, **dict(sizes), key=key, parity=structure.parity)

    factory = field_factory(make, len(structure.fields))
    return FieldNetwork(factory.init, partial(_solved, factory, tuple(map(float, range(len(times)))), substeps))


@lru_cache
def _hamiltonian(structure: Structure, times: Times, sizes: Sizes, substeps: int) -> FieldNetwork:
    # dissipation starts small: a large one is stiff on a fine grid
    factory = _hamiltonian_factory(structure, (*sizes, ("dissipation", 1e-3)))
    return FieldNetwork(factory.init, partial(_solved, factory, times, substeps))


@lru_cache
def _hamiltonian_factory(structure: Structure, sizes: Sizes) -> FieldFactory:
    def make(scale: Array, key: Array) -> HamiltonianField:
        return HamiltonianField(structure, scale, **dict(sizes), key=key)

    return field_factory(make, len(structure.fields))


@lru_cache
def _neural_factory(num_fields: int, num_ports: int, sizes: Sizes) -> FieldFactory:
    def make(scale: Array, key: Array) -> NeuralField:
        return NeuralField(scale, num_ports, **dict(sizes), key=key)

    return field_factory(make, num_fields)


def _solved(
    factory: FieldFactory, times: Times, substeps: int, params: PyTree, state: Array, frames: int
) -> Float[Array, "time *grid field"]:
    """A network of rates, integrated; its states are counted from the centre of the units, as their effort may be."""
    field = factory.field(params)
    unit = jax.lax.stop_gradient(field.scale)
    instants, nothing = jnp.asarray(times[:frames], state.dtype), jnp.zeros((frames, 0), state.dtype)
    return solve_field(field, state * unit, instants, nothing, substeps) / unit


def fit_hamiltonian(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """Energy (density) and dissipation by networks, the structure known; `found` holds the dissipation parameters.

    Options, errors as for `fit_stages` and `fit_windows`.
    Source: Greydanus et al. (2019), arXiv 1906.01563; Desai et al. (2021), arXiv 2107.08024.
    """
    del teacher
    group, structure = options["baselines"], task.problem.structure
    if "training" not in group:
        fitted = fit_stages("hnn", _hamiltonian, task, group, host, key)
        factory = _hamiltonian_factory(structure, (*_sizes(group["hnn"]), ("dissipation", 1e-3)))
        field = factory.field(fitted.params.network)
    else:
        factory = _hamiltonian_factory(structure, _sizes(group["network"]))
        fitted = fit_windows("hnn", factory, task, WindowOptions(**group["training"]), host, key)
        field = factory.field(fitted.params)
    return fitted._replace(found={name: float(value) for name, value in field.parameters().items()})


def fit_neural(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """Rates by a network, of the neighbours of each point on a grid, of what was measured without one.

    Options, errors as for `fit_stages` and `fit_windows`.
    Source: Chen et al. (2018), arXiv 1806.07366.
    """
    del teacher
    group, system = options["baselines"], task.problem
    if "training" not in group:
        return fit_stages("neural_ode", _neural, task, group, host, key)
    factory = _neural_factory(_num_measured(system), len(system.structure.ports), _sizes(group["network"]))
    return fit_windows("neural_ode", factory, task, WindowOptions(**group["training"]), host, key, measured=True)


def fit_fourier(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """A Fourier neural operator from frame to frame; options, errors as for `fit_stages`."""
    del teacher
    return fit_stages("fno", _fourier, task, options["baselines"], host, key)


def _sizes(group: Mapping[str, Any]) -> Sizes:
    return tuple(sorted(group.items()))


def _num_measured(system: System) -> int:
    if system.coordinates is None:
        return len(system.fields)
    return jax.eval_shape(system.coordinates[0], jnp.zeros(len(system.fields))).shape[-1]


def fit_stages(
    name: str, build: Build, task: Task, group: Mapping[str, Any], host: Host, key: Key[Array, ""]
) -> Fitted:
    """Train on windows of the observed trajectories, stage by stage.

    Args:
      name: of the network's sizes and stages in the group.
      build: the network of a structure.
      task: what to learn from.
      group: `baselines` of the options: sizes and stages by name, substeps, start_noise, ema_decay.
      host: trains.
      key: root key of the method.
    Returns:
      the method, without a distribution.
    Raises:
      InputError: ports, or frames that are not those of the forecast.
    """
    structure, examples = task.problem.structure, task.train()
    if "stages" not in group or examples.times != task.times or structure.ports:
        raise InputError(
            f"{name} steps from frame to frame: it needs baselines.stages, the times of forecasts, no ports"
        )
    network = build(structure, task.times, _sizes(group[name]), group["substeps"])
    normaliser = fit_normaliser(jnp.asarray(examples.fields, jnp.float32), structure)
    units = jax.tree.map(np.asarray, normaliser)
    state = jnp.asarray(units.normalised(np.asarray(examples.fields)).astype(units.scale.dtype))
    example = Example(state, jnp.ones_like(state[:, 1:]), state)
    init_key, train_key = jax.random.split(key)
    params = network.init(normaliser.scale, init_key)
    loss_of = window_losses(network.forecast, len(task.times), group["start_noise"])
    windows = cut_windows(group["stages"][name], len(task.times))
    params, seconds = train_windows(loss_of, windows, params, example, group["ema_decay"], host, train_key)
    model = _model(network, task.times, len(structure.fields) - task.companions)
    return Fitted(model, NetworkParams(normaliser, params), seconds)


def window_losses(
    forecast: Callable[[PyTree, Array, int], Array], num_frames: int, start_noise: float
) -> Callable[[int], Loss]:
    """Losses of a forecaster without physics by the frames after the first of a window, see `mean_loss`."""
    terms, times = PhysicsTerms(None, lambda state: state[:0], 0.0, 0.0), tuple(map(float, range(num_frames)))
    return lambda window: mean_loss(forecast, terms, times, window, start_noise)


def train_windows(
    loss_of: Callable[[int], Loss],
    windows: Mapping[int, Stage],
    params: PyTree,
    data: PyTree,
    ema_decay: float,
    host: Host,
    key: Key[Array, ""],
) -> tuple[PyTree, dict[str, float]]:
    """Train in stages, one a window.

    Args:
      loss_of: frames after the first of a window -> loss of one example.
      windows: from `cut_windows`, in order.
      params: to begin from.
      data: examples, leaves with a leading axis.
      ema_decay: of the averaged parameters.
      host: trains.
      key: of the training.
    Returns:
      averaged parameters after the last stage, and seconds by stage.
    """
    seconds = dict[str, float]()
    for index, (window, (steps, batch, rate)) in enumerate(windows.items()):
        stage_key, numbers = jax.random.fold_in(key, index), {"steps": steps, "batch": batch, "rate": rate}
        params, seconds[f"window_{window}"] = host.train(
            f"window_{window}", loss_of(window), params, data, stage_key, **numbers, ema_decay=ema_decay
        )
    return params, seconds


@lru_cache
def _model(network: FieldNetwork, times: Times, moving: int) -> Model:
    def prepare(params: NetworkParams, start: Start) -> Float[Array, "time *grid field"]:
        units = params.normaliser
        state = units.normalised(start.state).astype(units.scale.dtype)
        return units.physical(network.forecast(params.network, state, len(times)))[..., :moving]

    return mean_model(prepare, times)
