"""A forecaster in one call of its network: distilled from its sampler's many.

    xi(eps) = what the sampler makes of the noise eps in many calls,   L = mean |d(eps) - xi(eps)|^2

d is the denoiser at the largest noise, from the teacher's own parameters, or a network of another size from new ones;
mean and scale that the sample is made with stay the teacher's. The size of deviations is corrected anew, by samples of
the teacher.
Source: Luhman and Luhman (2021), arXiv 2101.02388 (pairs of a deterministic sampler), for conditional trajectories.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from phdme_jax.diffusion.networks import Condition
from phdme_jax.files import InputError
from phdme_jax.methods.base import Fitted, Host, Options, Start, Task, stage_key
from phdme_jax.methods.energy.conditional import Design, GeneratorParams, conditional_mean, make_model, scale_of
from phdme_jax.methods.energy.generator import Recipe, design_of
from phdme_jax.methods.energy.losses import Example, draw_deviation
from phdme_jax.methods.energy.options import SCHEDULE, read_options
from phdme_jax.methods.energy.rollouts import kept_rollouts
from phdme_jax.methods.energy.training import with_amplitude
from phdme_jax.numerics.batching import batched, in_chunks

CHUNK = 32


@dataclass(frozen=True)
class OneStepOptions:
    """The group `one_step` of the options, which may be left out.

    Attributes:
      num_pairs: of noise and sample.
      num_calls: of the teacher, a pair.
      stage: (steps, batch, rate) of the training.
      unet: sizes that are other than those of the teacher's network; left empty, its parameters are begun from.
    """

    num_pairs: int = 4096
    num_calls: int = 20
    stage: tuple[int, int, float] = (2000, 16, 1e-3)
    unet: Mapping[str, Any] = field(default_factory=dict)


class Pair(NamedTuple):
    """One example: noise, what the sampler makes of it, and the mean that it is told, normalised units."""

    noise: Float[Array, "time *grid field"]
    xi: Float[Array, "time *grid field"]
    mean: Float[Array, "time *grid field"]


def draw(
    design: Design, num_calls: int, params: PyTree, conditioning: tuple[Array, Array]
) -> Float[Array, "time *grid field"]:
    """xi of a mean and noise, in so many calls of the network."""
    mean, noise = conditioning
    known = jnp.asarray(design.fields.known(len(design.times), design.exact_start), noise.dtype)
    key = jax.random.key(0)  # of fresh noise, which this sampler does not draw
    return draw_deviation(design.denoiser, params, mean, known, noise, key, (SCHEDULE, num_calls))


def fit_one_step(
    recipe: Recipe, task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]
) -> Fitted:
    """Train a one-call student of a forecaster.

    Args:
      recipe: of the teacher.
      task: gives the starts that it is distilled on.
      options: the group `one_step`, see `OneStepOptions`, and those of the teacher.
      host: trains, and keeps pairs and the teacher's rollouts.
      teacher: the forecaster.
      key: root key of the method.
    Returns:
      the method. Seconds of the teacher and of the pairs are counted as training.
    Raises:
      InputError: a teacher whose mean is a rollout.
      RunFailed: the host has no rollouts of the teacher.
    """
    assert teacher is not None
    chosen, design = OneStepOptions(**options.get("one_step", {})), design_of(recipe, task, options, teacher)
    if design.propagator is None:
        raise InputError("a one-call student is of a forecaster around a learned step, got one around a rollout")

    exact = True if recipe.observed else bool(kept_rollouts(host, recipe.kept).exact_start)
    design = replace(design, exact_start=exact, num_steps=1)
    params: GeneratorParams = teacher.params
    name = f"one_step_{chosen.num_pairs}_{chosen.num_calls}"
    made = host.keep(name, partial(_pairs, design, chosen, task, params))
    pairs, (steps, batch, rate) = Pair(*(jnp.asarray(made[name]) for name in Pair._fields)), chosen.stage
    first = params.denoiser
    if chosen.unet:
        design = replace(design, denoiser=read_options(options).network.make_denoiser(chosen.unet))
        first = design.denoiser.init(
            jax.random.fold_in(key, 1), pairs.xi[0], Condition(pairs.mean[0, 0], pairs.mean[0])
        )

    def loss(network: PyTree, pair: Pair, key: Array) -> tuple[Array, dict[str, Array]]:
        del key
        error = jnp.mean((draw(design, 1, network, (pair.mean, pair.noise)) - pair.xi) ** 2)
        return error, {"matching": error}

    seconds = {**teacher.seconds, "pairs": float(made["seconds"])}
    decay = options["training"]["ema_decay"]
    network, seconds["one_step"] = host.train(
        "one_step", loss, first, pairs, key, steps=steps, batch=batch, rate=rate, ema_decay=decay
    )
    student = params._replace(denoiser=network)
    draws = options["training"].get("amplitude_draws", 0)
    few = jax.tree.map(lambda leaf: leaf[: max(draws, 1)], pairs)
    states = few.mean + jax.vmap(partial(scale_of, params))(few.mean) * params.amplitude * few.xi
    student, notes = with_amplitude(design, student, Example(states, jnp.ones_like(states[:, 1:]), few.mean), draws)
    return Fitted(make_model(design), student, seconds, notes=notes)


def _pairs(design: Design, chosen: OneStepOptions, task: Task, params: GeneratorParams) -> dict[str, np.ndarray]:
    """Noise, what the teacher makes of it, and the means of drawn starts."""
    key = stage_key(task.key, "pairs")
    starts: Start = task.starts(jax.random.fold_in(key, 0), chosen.num_pairs)
    means = in_chunks(partial(batched(conditional_mean, design), params), CHUNK, starts, fixed=True)
    noise = np.asarray(jax.random.normal(jax.random.fold_in(key, 1), means.shape, jnp.float32))
    carry = batched(draw, design, chosen.num_calls)
    began = time.perf_counter()
    xi = in_chunks(partial(carry, params.denoiser), CHUNK, (means, noise), fixed=True)
    return {"noise": noise, "xi": xi, "mean": means, "seconds": np.asarray(time.perf_counter() - began)}
