"""The driven reference case: one noisy trajectory under a force, and undriven motions that are to be forecast.

The published question, a motion from (-3, 0), is the validation split: choices were made on it. The test asks for
motions from drawn states.

H = x1^2/2 + 2 cos x1 + x2^2/2 - 1 with viscous damping, driven by a sin t.
Source: Beckers, Seidman, Perdikaris, Pappas (2022), arXiv 2305.09017, and the toolbox published with it.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from experiments.study.study import Bench, Context, Split
from phdme_jax.files import RunFailed
from phdme_jax.methods.base import Examples, Start, Task, Times
from phdme_jax.methods.energy.options import read_options
from phdme_jax.numerics import solve_reference
from phdme_jax.systems import make_system
from phdme_jax.systems.energy.base import System, parameter_values, vector_field


class Motions(NamedTuple):
    """One noisy driven trajectory and the undriven motions that are asked for.

    Attributes:
      states: observed, (time, field), noise included.
      times: evenly spaced.
      inputs: force at these times, (time, port).
      asked: the truth, (sample, time, field).
      asked_times: evenly spaced.
    """

    states: np.ndarray
    times: np.ndarray
    inputs: np.ndarray
    asked: np.ndarray
    asked_times: np.ndarray


def solve(system: System, start: tuple[float, ...], times: np.ndarray, force: float) -> np.ndarray:
    """Reference trajectory under the force `force` sin t, by diffrax at 1e-9 / 1e-10; time is a third field.

    Raises:
      RunFailed: the solver gave up.
    """
    values = parameter_values(system, jnp.float64)

    def field(extended: Array, _: Any) -> Array:
        inputs = force * jnp.sin(extended[2:])
        return jnp.append(vector_field(system.structure, system.density, extended[:2], values, inputs), 1.0)

    path, ok = jax.jit(partial(solve_reference, field))(jnp.array([*start, 0.0]), jnp.asarray(times), None)
    if not bool(ok):
        raise RunFailed("the reference solution of the pendulum failed; try a shorter duration")
    return np.asarray(path[:, :2])


def make_motions(system: System, data: ConfigDict, seed: int, validates: bool = False) -> Motions:
    """The published protocol; the seed draws the noise.

    Args:
      system: the true one.
      data: the group of the configuration.
      seed: of the noise.
      validates: whether to ask for the published motion, in the place of drawn ones.
    Returns:
      the motions; those of the test start at positions in [-4, 4] and momenta in [-2, 2], the same for all seeds.
    """
    times = np.linspace(0.0, data.duration, data.num_frames)
    test_times = np.linspace(0.0, data.test_duration, data.test_frames)
    clean = solve(system, data.start, times, data.force)
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(5), seed), clean.shape, jnp.float64)
    inputs = data.force * np.sin(times)[:, None]
    drawn = jax.random.uniform(jax.random.key(20261128), (data.num_test, 2), jnp.float64, -1.0, 1.0)
    starts = [data.test_start] if validates else (np.array([4.0, 2.0]) * np.asarray(drawn)).tolist()
    asked = np.stack([solve(system, start, test_times, 0.0) for start in starts])
    return Motions(clean + data.noise * np.asarray(noise), times, inputs, asked, test_times)


def draw_starts(
    states: np.ndarray,
    times: np.ndarray,
    count: int,
    key: Key[Array, ""],
    *,
    scale: tuple[float, float],
    size: float,
    frequency: tuple[float, float],
) -> Start:
    """Observed states, scaled, with a random sign, under inputs a sin(w t + phi).

    Args:
      states: observed, (time, field).
      times: of the inputs.
      count: number of draws.
      key: random key.
      scale: lower and upper end of the scaling.
      size: largest amplitude a; the smallest is zero.
      frequency: smallest and largest angular frequency w.
    Returns:
      conditions, leaves with a leading axis.
    """
    which, stretch, sign, *wave = jax.random.split(key, 6)

    def uniform(key: Array, low: float, high: float) -> np.ndarray:
        return np.asarray(jax.random.uniform(key, (count, 1), jnp.float64, low, high))

    chosen = states[np.asarray(jax.random.randint(which, (count,), 0, len(states)))]
    signs = np.asarray(jax.random.rademacher(sign, (count, 1), jnp.float64))
    amplitude, rate, phase = (
        uniform(one, *ends) for one, ends in zip(wave, ((0.0, size), frequency, (0.0, 2 * np.pi)), strict=True)
    )
    inputs = amplitude * np.sin(rate * times + phase)
    return Start(chosen * uniform(stretch, *scale) * signs, inputs[..., None])


def splined(fields: np.ndarray, drawn: Times, times: Times) -> np.ndarray:
    """Fields (sample, time, field) at other times than they were drawn at, by cubic splines."""
    from scipy.interpolate import CubicSpline

    return fields if drawn == times else CubicSpline(drawn, fields, axis=1)(times)


def pendulum_of(config: ConfigDict, case: str) -> System:
    """The system, of which learners use the structure only."""
    return make_system(case, **config.system)


def check_pendulum(context: Context) -> None:
    """Refuses options that no generator can have, and windows longer than what networks are trained on.

    Raises:
      ValueError: what is wrong.
    """
    from phdme_jax.methods.baselines.windows import check_lengths

    config = context.config
    read_options(config.to_dict())
    for key in ("training.windows", "phlearn.strides"):
        group, name = key.split(".")
        check_lengths(f"baselines.{key}", config.baselines[group][name], config.data.num_frames)


def pendulum_bench(context: Context, config: ConfigDict, case: str, seed: int) -> Bench:
    """One seed: the observed trajectory, and free motions; its world is the `Motions`."""
    motions = make_motions(pendulum_of(config, case), config.data, seed, context.validates)
    options, times = config.to_dict(), tuple(motions.asked_times.tolist())
    key = jax.random.fold_in(jax.random.key(9), seed)
    drawn = {name: options["generator"].pop(name) for name in ("rollouts", "start_scale", "input_size", "frequency")}
    start = Start(motions.states[:1], motions.inputs[None])
    train = Examples(motions.states[None], start, tuple(motions.times.tolist()))
    still = Start(motions.asked[:, 0], np.zeros((len(motions.asked), len(times), 1)))
    sample_key, fit_key = (jax.random.fold_in(jax.random.key(root), seed) for root in (6, 8))
    return Bench(
        task=Task(
            problem=pendulum_of(config, case),
            train=lambda: train,
            starts=lambda key, count: draw_starts(
                motions.states,
                motions.asked_times,
                count,
                key,
                scale=drawn["start_scale"],
                size=drawn["input_size"],
                frequency=drawn["frequency"],
            ),
            key=key,
            times=times,
        ),
        options=options | {"rollouts": {"count": drawn["rollouts"]}},
        splits={context.asked: Split(motions.asked, still, partial(splined, times=times))},
        key=key,
        sample_key=lambda split, method: sample_key,
        num_samples=config.sampling.num_samples,
        method_key=lambda method: fit_key,
        world=motions,
    )
