"""Flow matching from a random walk: trajectories whose first frames are given, in a few calls.

    y = (x - line) / s,   y_0 = W_j / sqrt(j),   y_t = (1 - t) y_0 + t y,   u(y_t, t) ~ y - y_0

`line` continues the last given frames, s is the size of what the data deviate from it, frame by frame, and W_j is the
sum of j independent normal numbers, j frames after the last given one: noise stays small and smooth near what is known,
and starts where the trajectory may be expected. At given frames y and y_0 are zero.
Source: the conditioned random walk of arXiv 2505.18647; that its size is the data's at each frame is this project's.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from phdme_jax.diffusion.flow import sample_flow
from phdme_jax.methods.base import Examples, Fitted, Host, Model, Options, Task
from phdme_jax.methods.equations import network as shared
from phdme_jax.methods.equations.encoding import Encoding, decode
from phdme_jax.methods.equations.flow import make_velocity
from phdme_jax.methods.equations.network import EncodedExample, EquationNetwork, Params, Prepared, Recipe
from phdme_jax.systems.given_frames import told_frames


def walk(noise: Float[Array, "*grid field"], known: Float[Array, "*grid 1"], axis: int) -> Float[Array, "*grid field"]:
    """A random walk along time of variance one, zero at given frames.

    Args:
      noise: standard normal.
      known: one where a frame is given, and these come first.
      axis: of time.
    Returns:
      sum of the noise since the last given frame, over the root of the number of frames since.
    """
    fresh = 1.0 - known.astype(noise.dtype)
    steps = jnp.cumsum(fresh, axis=axis)
    return jnp.cumsum(fresh * noise, axis=axis) / jnp.sqrt(jnp.maximum(steps, 1.0))


def deviation_sizes(
    deviations: Float[Array, "sample *grid field"], axis: int, mixed: tuple[tuple[int, ...], ...]
) -> Float[Array, "*sizes field"]:
    """Root mean square of each field in each frame, one entry along the other axes; ones where nothing deviates.

    Args:
      deviations: from the line.
      axis: of time, of one sample.
      mixed: numbers of fields that share a size, see `Symmetry`.
    Returns:
      the sizes.
    """
    others = tuple(index for index in range(deviations.ndim - 1) if index != axis + 1)
    square = jnp.mean(deviations**2, axis=others, keepdims=True)[0]
    for group in mixed:
        index = jnp.asarray(group)
        square = square.at[..., index].set(jnp.mean(square[..., index], axis=-1, keepdims=True))
    return jnp.where(square > 0, jnp.sqrt(square), 1.0)


def encode_deviations(net: EquationNetwork, examples: Examples) -> tuple[Params, EncodedExample]:
    """Parameters whose encoding of fields has the sizes of deviations, and examples as deviations from their lines."""
    equations, axis = net.equations, net.equations.time_axis
    assert axis is not None
    fields, (line, _) = jnp.asarray(examples.fields), told_frames(jnp.asarray(examples.condition), net.shape[-1])
    symmetry = equations.priors.symmetry
    sizes = deviation_sizes(fields - line, axis, () if symmetry is None else symmetry.mixed).astype(net.dtype)
    params = shared.fit_params(net, examples)._replace(fields=Encoding(jnp.zeros_like(sizes), sizes))
    data = shared.encode_examples(net, params, examples._replace(fields=fields - line))
    return params, data


def make_loss(net: EquationNetwork) -> shared.Loss:
    """Error of the velocity between a walk and an example: (parameters of the network, example, key) -> loss."""
    prepare, velocity_of, axis = shared.make_prepare(net), make_velocity(net), net.equations.time_axis
    assert axis is not None

    def loss(network: PyTree, example: EncodedExample, key: Array) -> tuple[Array, dict[str, Array]]:
        velocity = velocity_of(network, prepare(network, example.given))
        time_key, noise_key = jax.random.split(key)
        time = jax.random.uniform(time_key, (), example.fields.dtype)
        _, known = told_frames(example.given.condition, net.shape[-1])
        start = walk(jax.random.normal(noise_key, net.shape, example.fields.dtype), known, axis)
        found = velocity((1.0 - time) * start + time * example.fields, time)
        matching = jnp.mean((1.0 - known) * (found - (example.fields - start)) ** 2)
        return matching, {"matching": matching}

    return loss


def make_model(net: EquationNetwork, num_steps: int) -> Model:
    """A flow from a walk, followed in even steps; the given frames come out as they are."""
    prepare, velocity_of, axis = shared.make_prepare(net), make_velocity(net), net.equations.time_axis
    assert axis is not None

    def draw(params: Params, prepared: Prepared, latent: Array, key: Array) -> Array:
        condition = prepared.given.condition
        line, known = told_frames(condition, net.shape[-1])
        found = sample_flow(velocity_of(params.network, prepared), walk(latent, known, axis), key, num_steps)
        return line + (1.0 - known) * decode(params.fields, net.kinds, found)

    return Model(
        prepare=lambda params, condition: prepare(params.network, shared.give(params, condition)),
        draw=draw,
        latent=lambda key: jax.random.normal(jax.random.split(key)[0], net.shape, net.dtype),
        num_calls=num_steps,
    )


def fit_random_walk(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """Flow matching from the random walk that the given frames start, by the network that commutes with the symmetry
    where the options have one.

    Args:
      task: its problem is `Equations` whose first frames are given.
      options: groups `network`, maybe `symmetric_network`, `data`, `stages`, `training` and `sampling`.
      host: where it trains.
      teacher: none.
      key: of the method and seed.
    Returns:
      the fitted method.
    Raises:
      ValueError: fields that are not encoded linearly.
    Source: arXiv 2505.18647.
    """
    del teacher
    if set(options["data"]["kinds"]) != {"linear"}:
        raise ValueError(f"expected fields of kind linear for a random walk, got {options['data']['kinds']}")
    options = {**options, "network": options.get("symmetric_network", options["network"])}
    steps = shared.Sampling(**options["sampling"]).walk_steps

    def recipe(net: EquationNetwork) -> Recipe:
        return Recipe("flow", lambda number: make_loss(net), make_model(net, steps))

    return shared.fit_recipe(recipe, task, options, host, key, encoded=encode_deviations)
