"""Forecasts from sensors by a generator: of the state that the readings began at, and of what follows from it.

    x_0 = b + B z,   z = m + P^(1/2) xi,   xi ~ diffusion model given the readings,   x ~ forecaster given x_0

m and P are those of Laplace's approximation of the posterior, from a few Gauss-Newton steps through the mean of the
forecaster; where it is exact xi is white noise. The diffusion model makes of it what the posterior is. It is
trained on windows of trajectories whose energies are uncertain, posterior rollouts, with sensors at other places each
time: one network for all layouts. The forecaster is a generator that is told a whole state.
"""

import time
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from phdme_jax.diffusion.loss import denoising_loss
from phdme_jax.diffusion.mlp import make_mlp
from phdme_jax.diffusion.networks import Condition, Network
from phdme_jax.diffusion.preconditioning import bind, precondition
from phdme_jax.diffusion.propagator import Propagator, propagate
from phdme_jax.diffusion.samplers import sample
from phdme_jax.files import InputError
from phdme_jax.methods.base import Fitted, Host, Model, Options, Start, Task
from phdme_jax.methods.energy.conditional import GeneratorParams
from phdme_jax.methods.energy.generator import Recipe, design_of
from phdme_jax.methods.energy.options import SCHEDULE
from phdme_jax.methods.energy.rollouts import kept_rollouts
from phdme_jax.methods.energy.training import limited_amplitude, size_ratio
from phdme_jax.methods.sensors.background import Background, fit_background
from phdme_jax.methods.sensors.gauss_newton import Laplace, laplace
from phdme_jax.methods.sensors.sensed import (
    Sensed,
    SensorOptions,
    draw_places,
    normalised,
    read_window,
    require_all_moving,
    sensor_options,
)
from phdme_jax.numerics.batching import batched, in_chunks
from phdme_jax.systems.energy.base import Structure

CHUNK = 64
AMPLITUDE_DRAWS = 2048  # examples that the size of samples is measured on


@dataclass(frozen=True)
class Design:
    """All of it but the arrays.

    Attributes:
      structure: of the system.
      denoiser: preconditioned network of xi.
      num_calls: of it; none leaves Laplace's approximation as it is.
      shape: of xi.
      steps: of Gauss-Newton.
      window: frames that are read.
      propagator: mean of the forecaster.
      forecaster: told the state.
    """

    structure: Structure
    denoiser: Network
    num_calls: int
    shape: tuple[int, ...]
    steps: int
    window: int
    propagator: Propagator
    forecaster: Model


class SensedParams(NamedTuple):
    """Arrays of a generator from sensors.

    Attributes:
      background: of states, normalised units.
      noise: of readings, normalised units.
      denoiser: of its network.
      amplitude: correction of the size of xi in so many calls, by direction.
      forecaster: of what follows from the state; its units are those of all.
    """

    background: Background
    noise: Float[Array, "field"]
    denoiser: PyTree
    amplitude: Float[Array, "direction"]
    forecaster: GeneratorParams


class Example(NamedTuple):
    """One training example: xi, and what the network is conditioned on."""

    xi: Float[Array, "direction"]
    conditioning: Float[Array, "number"]


class Pair(NamedTuple):
    """One example of a one-call student: noise, and what the diffusion model makes of it."""

    noise: Float[Array, "direction"]
    xi: Float[Array, "direction"]
    conditioning: Float[Array, "number"]


def _narrow(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)


def posterior_approximation(design: Design, params: SensedParams, sensed: Sensed) -> Laplace:
    """Laplace's approximation of what readings in normalised units say of z."""
    background, sensed = params.background, _narrow(sensed)

    def window(z: Array) -> Array:
        return propagate(design.propagator, params.forecaster.propagator, background.state(z), design.window)

    return laplace(window, sensed, params.noise, jnp.zeros(design.shape), design.steps)


def conditioning_of(found: Laplace) -> Float[Array, "number"]:
    """What the network is conditioned on: nothing beyond the range that it is trained in."""
    misfit = jnp.clip(jnp.log(found.misfit), -2.0, 2.0)
    return jnp.concatenate([found.mode, found.root[jnp.triu_indices(len(found.mode))], misfit[None]])


def draw_example(
    design: Design,
    counts: tuple[int, ...],
    params: SensedParams,
    drawn: tuple[Float[Array, "window *grid field"], Key[Array, ""]],
) -> Example:
    """One example from a window in normalised units: a layout of sensors and their noise are drawn."""
    window, key = drawn
    count_key, place_key, noise_key = jax.random.split(key, 3)
    mask = draw_places(design.structure, jax.random.choice(count_key, jnp.asarray(counts)), place_key)
    sensed = read_window(window, mask, params.noise, noise_key)
    found = posterior_approximation(design, params, sensed)
    return Example(found.whitened(params.background.coordinates(window[0])), conditioning_of(found))


def denoising(denoiser: Network) -> Any:
    """Loss of the diffusion model: (parameters, example, key) -> (loss, metrics)."""

    def loss(params: PyTree, example: Example, key: Array) -> tuple[Array, dict[str, Array]]:
        denoise = bind(denoiser, params, Condition(rollout=example.conditioning))
        terms = denoising_loss(denoise, SCHEDULE, example.xi, key, weighting="edm")
        return terms.loss, {"denoising": terms.loss}

    return loss


def draw_xi(denoiser: Network, num_calls: int, params: PyTree, given: tuple[Array, Array]) -> Array:
    """xi that the diffusion model, or its student in one call, makes of a conditioning and noise."""
    conditioning, noise = given
    denoise = bind(denoiser, params, Condition(rollout=conditioning))
    key = jax.random.key(0)  # of fresh noise, which this sampler does not draw
    return sample(denoise, SCHEDULE, noise, key, sampler="dpm", num_steps=num_calls, spacing="log_snr")


def matching(denoiser: Network) -> Any:
    """Loss of the one-call student: (parameters, pair, key) -> (loss, metrics)."""

    def loss(params: PyTree, pair: Pair, key: Array) -> tuple[Array, dict[str, Array]]:
        del key
        error = jnp.mean((draw_xi(denoiser, 1, params, (pair.conditioning, pair.noise)) - pair.xi) ** 2)
        return error, {"matching": error}

    return loss


def training_windows(task: Task, host: Host, chosen: SensorOptions, observed: bool) -> Float[np.ndarray, "..."]:
    """Windows that a generator learns from, physical units, (sample, window, *grid, field).

    Args:
      task: what was observed.
      host: keeps the rollouts that the forecaster was trained on.
      chosen: the group `sensors`.
      observed: whether all windows of the observed trajectories are taken in place of the first ones of rollouts.
    Returns:
      the windows.
    Raises:
      RunFailed: the host has no rollouts.
    """
    if not observed:
        return kept_rollouts(host, "rollouts").states[:, : chosen.window]
    fields = np.asarray(task.train().fields)
    starts = range(fields.shape[1] - chosen.window + 1)
    return np.concatenate([fields[:, first : first + chosen.window] for first in starts])


def fit_sensed(
    recipe: Recipe, task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]
) -> Fitted:
    """Train the generator of the state that readings began at, around a forecaster that is told states.

    Args:
      recipe: of the forecaster; what it was trained on, this is.
      task: what to learn from.
      options: groups `sensors`, see `SensorOptions`, and those of the forecaster.
      host: trains, and keeps the forecaster's rollouts.
      teacher: the forecaster.
      key: root key of the method.
    Returns:
      the method; its condition is a `Sensed`. Seconds of the forecaster are counted as training.
    Raises:
      InputError: fields that never change, ports, or a forecaster without a learned step.
    """
    assert teacher is not None
    structure, chosen = task.problem.structure, sensor_options(options, len(task.times))
    forecaster = design_of(recipe, task, options, teacher)
    require_all_moving(task)
    if forecaster.propagator is None:
        raise InputError("expected a forecaster around a learned step, got one around a rollout")
    units = jax.tree.map(np.asarray, teacher.params.normaliser)
    windows = units.normalised(training_windows(task, host, chosen, recipe.observed)).astype(np.float32)
    background = _narrow(fit_background(windows[:, 0], chosen.directions))
    directions = background.root.shape[-1]
    design = Design(
        structure=structure,
        denoiser=precondition(make_mlp(shape=(directions,), **chosen.mlp), SCHEDULE, "edm"),
        num_calls=chosen.num_calls,
        shape=(directions,),
        steps=chosen.steps,
        window=chosen.window,
        propagator=forecaster.propagator,
        forecaster=teacher.model,
    )
    noise = jnp.full(len(structure.fields), chosen.noise, jnp.float32)
    params = SensedParams(background, noise, None, jnp.ones(directions, jnp.float32), teacher.params)
    seconds = dict(teacher.seconds)
    if chosen.num_calls:
        examples, seconds["examples"] = training_examples(design, chosen, params, windows, host, recipe, key)
        params, more = _trained(design, chosen, params, examples, host, key, options["training"]["ema_decay"])
        seconds |= more
    return Fitted(make_model(design), params, seconds)


def training_examples(
    design: Design,
    chosen: SensorOptions,
    params: SensedParams,
    windows: Float[np.ndarray, "sample window *grid field"],
    host: Host,
    recipe: Recipe,
    key: Key[Array, ""],
) -> tuple[Example, float]:
    """Examples from windows in normalised units, several layouts each, and the seconds that they took.

    They are kept under all that they depend on beside the forecaster, for any number of calls.
    """
    draw_key = jax.random.split(key, 5)[0]

    def make() -> dict[str, np.ndarray]:
        began, keys = time.perf_counter(), jax.random.split(draw_key, chosen.num_examples)
        which = np.arange(chosen.num_examples) % len(windows)
        drawn = partial(batched(draw_example, replace(design, num_calls=0), chosen.counts), params)
        examples = in_chunks(drawn, CHUNK, (windows[which], keys), fixed=True)
        return {**examples._asdict(), "seconds": np.asarray(time.perf_counter() - began)}

    numbers = (chosen.num_examples, chosen.window, chosen.noise, chosen.steps, chosen.directions, *chosen.counts)
    made = dict(host.keep("_".join(["sensed", recipe.data, *map(str, numbers)]), make))
    seconds = float(made.pop("seconds"))
    return Example(**jax.tree.map(jnp.asarray, made)), seconds


def _trained(
    design: Design,
    chosen: SensorOptions,
    params: SensedParams,
    data: Example,
    host: Host,
    key: Key[Array, ""],
    decay: float,
) -> tuple[SensedParams, dict[str, float]]:
    """Parameters with those of the network, and seconds by stage."""
    _, init_key, stage_key, pair_key, student_key = jax.random.split(key, 5)
    denoiser, seconds = design.denoiser, {}

    def train(name: str, loss: Any, network: PyTree, data: PyTree, key: Array, stage: tuple[int, int, float]) -> PyTree:
        steps, batch, rate = stage
        network, seconds[name] = host.train(
            name, loss, network, data, key, steps=steps, batch=batch, rate=rate, ema_decay=decay
        )
        return network

    def carried(network: PyTree, num_calls: int, examples: Example, key: Array) -> tuple[np.ndarray, np.ndarray]:
        noise = np.asarray(jax.random.normal(key, examples.xi.shape, jnp.float32))
        carry = partial(batched(draw_xi, denoiser, num_calls), network)
        return noise, in_chunks(carry, CHUNK, (np.asarray(examples.conditioning), noise), fixed=True)

    fresh = denoiser.init(init_key, data.xi[0], Condition(rollout=data.conditioning[0]))
    network = train("state", denoising(denoiser), fresh, data, stage_key, chosen.stage)
    if chosen.num_calls == 1:
        noise, xi = carried(network, chosen.pair_calls, data, pair_key)
        pairs = Pair(jnp.asarray(noise), jnp.asarray(xi), data.conditioning)
        network = train("student", matching(denoiser), network, pairs, student_key, chosen.student_stage)
    few = jax.tree.map(lambda leaf: leaf[:AMPLITUDE_DRAWS], data)
    _, drawn = carried(network, design.num_calls, few, jax.random.fold_in(pair_key, 1))
    sizes = [np.sqrt(np.mean(np.asarray(values) ** 2, axis=0)) for values in (few.xi, drawn)]
    amplitude = jnp.asarray(limited_amplitude(size_ratio(*sizes)), jnp.float32)
    return params._replace(denoiser=network, amplitude=amplitude), seconds


@lru_cache
def make_model(design: Design) -> Model:
    """The model of a design; the same record for the same design."""
    structure, forecaster = design.structure, design.forecaster

    def prepare(params: SensedParams, sensed: Sensed) -> tuple[Laplace, Array]:
        readings = normalised(sensed, params.forecaster.normaliser)
        found = posterior_approximation(design, params, readings)
        return found, conditioning_of(found)

    def latent(key: Array) -> tuple[Array, Array]:
        assert forecaster.latent is not None
        state_key, rest = jax.random.split(jax.random.split(key)[0])
        return jax.random.normal(state_key, design.shape, jnp.float32), forecaster.latent(rest)

    def draw(params: SensedParams, prepared: tuple[Laplace, Array], latent: tuple[Array, Array], key: Array) -> Array:
        (found, conditioning), (noise, rest) = prepared, latent
        xi = noise
        if design.num_calls:
            xi = params.amplitude * draw_xi(design.denoiser, design.num_calls, params.denoiser, (conditioning, noise))
        state = params.forecaster.normaliser.physical(params.background.state(found.coordinates(xi)))
        start = Start(structure.constrain(state), jnp.zeros((len(forecaster.times), 0)))
        return forecaster.draw(params.forecaster, forecaster.prepare(params.forecaster, start), rest, key)

    return Model(
        prepare=prepare,
        draw=draw,
        latent=latent,
        times=forecaster.times,
        num_calls=design.num_calls + forecaster.num_calls,
    )
