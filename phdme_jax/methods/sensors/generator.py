"""Forecasts from sensors by a generator: of the state that the readings began at, and of what follows from it.

    x_0 = b + B z,   z = m + P^(1/2) xi,   xi ~ diffusion model given the readings,   x ~ forecaster given x_0

m and P are those of Laplace's approximation of the posterior, from a few steps of Gauss and Newton through the mean of
the forecaster; where it is exact xi is white noise. The diffusion model makes of it what the posterior is. It is
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
from phdme_jax.files import InputError, RunFailed
from phdme_jax.methods.base import Fitted, Host, Model, Options, Start, Task
from phdme_jax.methods.energy.conditional import GeneratorParams
from phdme_jax.methods.energy.generator import Recipe, design_of
from phdme_jax.methods.energy.options import SCHEDULE
from phdme_jax.methods.energy.training import LARGEST_AMPLITUDE
from phdme_jax.methods.sensors.background import Background, fit_background
from phdme_jax.methods.sensors.laplace import Laplace, laplace
from phdme_jax.methods.sensors.sensed import Sensed, SensorOptions, draw_places, normalised, read_window, sensor_options
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
      steps: of Gauss and Newton.
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
    """One training example: xi, and what the network is told."""

    xi: Float[Array, "direction"]
    told: Float[Array, "number"]


class Pair(NamedTuple):
    """One example of a one-call student: noise, and what the diffusion model makes of it."""

    noise: Float[Array, "direction"]
    xi: Float[Array, "direction"]
    told: Float[Array, "number"]


def _narrow(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)


def find(design: Design, params: SensedParams, sensed: Sensed) -> Laplace:
    """Laplace's approximation of what readings in normalised units say of z."""
    background, sensed = params.background, _narrow(sensed)

    def window(z: Array) -> Array:
        return propagate(design.propagator, params.forecaster.propagator, background.state(z), design.window)

    return laplace(window, sensed, params.noise, jnp.zeros(design.shape), design.steps)


def told_of(found: Laplace) -> Float[Array, "number"]:
    """What the network is told: nothing beyond the range that it is trained in."""
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
    found = find(design, params, sensed)
    return Example(found.whitened(params.background.coordinates(window[0])), told_of(found))


def denoising(denoiser: Network) -> Any:
    """Loss of the diffusion model: (parameters, example, key) -> (loss, metrics)."""

    def loss(params: PyTree, example: Example, key: Array) -> tuple[Array, dict[str, Array]]:
        denoise = bind(denoiser, params, Condition(rollout=example.told))
        terms = denoising_loss(denoise, SCHEDULE, example.xi, key, weighting="edm")
        return terms.loss, {"denoising": terms.loss}

    return loss


def call(denoiser: Network, num_calls: int, params: PyTree, given: tuple[Array, Array]) -> Array:
    """What the diffusion model, or its student in one call, makes of noise under what it is told."""
    told, noise = given
    denoise, key = bind(denoiser, params, Condition(rollout=told)), jax.random.key(0)  # this sampler draws nothing
    return sample(denoise, SCHEDULE, noise, key, sampler="dpm", num_steps=num_calls, spacing="log_snr")


def matching(denoiser: Network) -> Any:
    """Loss of the one-call student: (parameters, pair, key) -> (loss, metrics)."""

    def loss(params: PyTree, pair: Pair, key: Array) -> tuple[Array, dict[str, Array]]:
        del key
        error = jnp.mean((call(denoiser, 1, params, (pair.told, pair.noise)) - pair.xi) ** 2)
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

        def missing() -> dict[str, Any]:
            raise RunFailed("expected the rollouts that the forecaster was trained on; fit it with the same host first")

        return np.asarray(host.keep("rollouts", missing)["states"])[:, : chosen.window]
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
    if task.companions or structure.ports or forecaster.propagator is None:
        raise InputError("forecasts from sensors are of systems without ports whose fields all move, by a learned step")
    windows = np.asarray(
        teacher.params.normaliser.normalised(jnp.asarray(training_windows(task, host, chosen, recipe.observed))),
        np.float32,
    )
    background = _narrow(fit_background(windows[:, 0], chosen.directions))
    directions = background.root.shape[-1]
    denoiser = precondition(make_mlp(shape=(directions,), **chosen.mlp), SCHEDULE, "edm")
    design = Design(
        structure, denoiser, chosen.num_calls, (directions,), chosen.steps, chosen.window,
        forecaster.propagator, teacher.model,
    )  # fmt: skip
    noise = jnp.full(len(structure.fields), chosen.noise, jnp.float32)
    params = SensedParams(background, noise, None, jnp.ones(directions, jnp.float32), teacher.params)
    seconds = dict(teacher.seconds)
    if chosen.num_calls:
        kept = "sensed_observed" if recipe.observed else "sensed"
        params, more = _trained(design, chosen, params, windows, host, key, options["training"]["ema_decay"], kept)
        seconds |= more
    return Fitted(make_model(design), params, seconds)


def _trained(
    design: Design,
    chosen: SensorOptions,
    params: SensedParams,
    windows: np.ndarray,
    host: Host,
    key: Array,
    decay: float,
    kept: str,
) -> tuple[SensedParams, dict[str, float]]:
    """Parameters with those of the network, and seconds by stage."""
    draw_key, init_key, stage_key, pair_key, student_key = jax.random.split(key, 5)
    denoiser = design.denoiser

    def make() -> dict[str, np.ndarray]:
        began, keys = time.perf_counter(), jax.random.split(draw_key, chosen.num_examples)
        which = np.arange(chosen.num_examples) % len(windows)
        drawn = partial(batched(draw_example, replace(design, num_calls=0), chosen.counts), params)
        examples = in_chunks(drawn, CHUNK, (windows[which], keys), fixed=True)
        return {**examples._asdict(), "seconds": np.asarray(time.perf_counter() - began)}

    # the same for any number of calls
    made = dict(host.keep(f"{kept}_{chosen.num_examples}_{chosen.window}_{chosen.noise:g}_{chosen.steps}", make))
    seconds = {"examples": float(made.pop("seconds"))}
    data = Example(**jax.tree.map(jnp.asarray, made))
    network = denoiser.init(init_key, data.xi[0], Condition(rollout=data.told[0]))
    steps, batch, rate = chosen.stage
    network, seconds["state"] = host.train(
        "state", denoising(denoiser), network, data, stage_key, steps=steps, batch=batch, rate=rate, ema_decay=decay
    )
    if chosen.num_calls == 1:
        noise = np.asarray(jax.random.normal(pair_key, data.xi.shape, jnp.float32))
        carry = partial(batched(call, denoiser, chosen.pair_calls), network)
        xi = in_chunks(carry, CHUNK, (np.asarray(data.told), noise), fixed=True)
        pairs = Pair(jnp.asarray(noise), jnp.asarray(xi), data.told)
        steps, batch, rate = chosen.student_stage
        network, seconds["student"] = host.train(
            "student", matching(denoiser), network, pairs, student_key,
            steps=steps, batch=batch, rate=rate, ema_decay=decay,
        )  # fmt: skip
    few, noise_key = jax.tree.map(lambda leaf: leaf[:AMPLITUDE_DRAWS], data), jax.random.fold_in(pair_key, 1)
    noise = np.asarray(jax.random.normal(noise_key, few.xi.shape, jnp.float32))
    carry = partial(batched(call, denoiser, design.num_calls), network)
    amplitude = size_ratio(few.xi, in_chunks(carry, CHUNK, (np.asarray(few.told), noise), fixed=True))
    return params._replace(denoiser=network, amplitude=amplitude), seconds


def size_ratio(
    wanted: Float[Array, "sample direction"], found: Float[np.ndarray, "sample direction"]
) -> Float[Array, "direction"]:
    """Root mean square of what samples should be over that of samples, by direction, between a third and three.

    Few calls of a network draw samples too alike, see `methods.energy.training.with_amplitude`.
    """
    ratio = jnp.sqrt(jnp.mean(wanted**2, axis=0) / jnp.maximum(jnp.mean(jnp.asarray(found) ** 2, axis=0), 1e-6))
    return jnp.clip(ratio, 1 / LARGEST_AMPLITUDE, LARGEST_AMPLITUDE).astype(jnp.float32)


@lru_cache
def make_model(design: Design) -> Model:
    """The model of a design; the same record for the same design."""
    structure, forecaster = design.structure, design.forecaster

    def prepare(params: SensedParams, sensed: Sensed) -> tuple[Laplace, Array]:
        told = normalised(sensed, params.forecaster.normaliser)
        found = find(design, params, told)
        return found, told_of(found)

    def latent(key: Array) -> tuple[Array, Array]:
        assert forecaster.latent is not None
        state_key, rest = jax.random.split(jax.random.split(key)[0])
        return jax.random.normal(state_key, design.shape, jnp.float32), forecaster.latent(rest)

    def draw(params: SensedParams, prepared: tuple[Laplace, Array], latent: tuple[Array, Array], key: Array) -> Array:
        (found, told), (noise, rest) = prepared, latent
        xi = noise
        if design.num_calls:
            xi = params.amplitude * call(design.denoiser, design.num_calls, params.denoiser, (told, noise))
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
