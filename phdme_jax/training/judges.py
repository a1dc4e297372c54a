"""Scores of generated trajectories by small networks: whether they tell them from real ones, what they learn from them.

Source: Yoon, Jarrett, van der Schaar (2019), Time-series generative adversarial networks, section 5; of particles, Han
et al. (2024), arXiv 2410.13027, section 5.2.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from phdme_jax.numerics.arrays import ratio

WIDTHS = (128, 128)
BATCH, RATE = 64, 1e-3
ROUNDS = 20  # times that a network in training is looked at


class _Perceptron(nn.Module):
    widths: Sequence[int]
    outputs: int

    @nn.compact
    def __call__(self, inputs: Float[Array, "inputs"]) -> Float[Array, "outputs"]:
        hidden = inputs
        for width in self.widths:
            hidden = nn.silu(nn.Dense(width)(hidden))
        return nn.Dense(self.outputs)(hidden)


class _Labelled(NamedTuple):
    inputs: Float[Array, "sample inputs"]
    targets: Float[Array, "sample outputs"]


Misfit = Callable[[Array, Array], Array]  # (answers, targets) -> of each sample


@partial(jax.jit, static_argnames=("misfit", "steps"))
def _best_on(
    train: _Labelled, watched: _Labelled, tested: _Labelled, key: Array, misfit: Misfit, steps: int
) -> tuple[Array, Array]:
    """Mean misfit of the watched and the tested, of the network that suits the watched best while it trains."""
    network = _Perceptron(WIDTHS, train.targets.shape[1])
    init_key, draw_key = jax.random.split(key)
    optimizer = optax.adam(RATE)
    params = network.init(init_key, train.inputs[0])

    def loss(params: PyTree, part: _Labelled) -> Array:
        answers = jax.vmap(network.apply, (None, 0))(params, part.inputs)
        return jnp.mean(misfit(jnp.asarray(answers), part.targets))

    def step(carry: tuple[PyTree, Any], key: Array) -> tuple[tuple[PyTree, Any], None]:
        params, state = carry
        rows = jax.random.randint(key, (BATCH,), 0, len(train.inputs))
        slope = jax.grad(loss)(params, jax.tree.map(lambda leaf: leaf[rows], train))
        updates, state = optimizer.update(slope, state, params)
        return (optax.apply_updates(params, updates), state), None

    def look(carry: tuple[PyTree, Any], key: Array) -> tuple[tuple[PyTree, Any], tuple[Array, Array]]:
        carry, _ = jax.lax.scan(step, carry, jax.random.split(key, max(1, steps // ROUNDS)))
        return carry, (loss(carry[0], watched), loss(carry[0], tested))

    _, (watching, testing) = jax.lax.scan(look, (params, optimizer.init(params)), jax.random.split(draw_key, ROUNDS))
    best = jnp.argmin(watching)
    return watching[best], testing[best]


def _standard(reference: Array, *sets: Array) -> list[Array]:
    """Sets as float32 in units of the reference: mean and deviation of each channel."""
    axes = tuple(range(reference.ndim - 1))
    shift, scale = jnp.mean(reference, axis=axes), jnp.std(reference, axis=axes)
    return [ratio(part - shift, jnp.broadcast_to(scale, part.shape)).astype(jnp.float32) for part in sets]


def _flat(part: Array) -> Array:
    return part.reshape(len(part), -1)


def _entropy(answers: Array, targets: Array) -> Array:
    return optax.sigmoid_binary_cross_entropy(answers, targets)[:, 0]


def _square(answers: Array, targets: Array) -> Array:
    return jnp.mean((answers - targets) ** 2, axis=1)


def classification_score(
    generated: Float[Array, "sample *grid"], real: Float[Array, "other *shape"], key: PRNGKeyArray, steps: int = 1000
) -> Float[Array, ""]:
    """Cross entropy of a network that tells generated from real, on a fifth that it was not trained on.

    Trained on three fifths of both, stopped where it suits another fifth best. A coin says log 2 = 0.693, which is the
    best that a generator can reach, but for chance; a generator that is found out has zero.

    Args:
      generated: trajectories, channels last.
      real: as many of the data.
      key: of initial parameters and batches.
      steps: of training.
    Returns:
      the cross entropy of the tested fifth.
    Raises:
      ValueError: sets of different shapes, or of fewer than five trajectories.
    """
    if generated.shape != real.shape or len(real) < 5:
        raise ValueError(f"expected two sets of one shape and five or more, got {generated.shape} and {real.shape}")
    parts = _standard(real, real, generated)
    cuts = [3 * len(real) // 5, 4 * len(real) // 5]
    labelled = []
    for pieces in zip(*(jnp.split(_flat(part), cuts) for part in parts), strict=True):
        targets = jnp.repeat(jnp.array([1.0, 0.0], jnp.float32), len(pieces[0]))[:, None]
        labelled.append(_Labelled(jnp.concatenate(pieces), targets))
    return _best_on(*labelled, key, _entropy, steps)[1]


def prediction_score(
    generated: Float[Array, "sample time *grid"],
    real: Float[Array, "other frames *shape"],
    key: PRNGKeyArray,
    steps: int = 1000,
) -> Float[Array, ""]:
    """Mean square error on real trajectories of a network that has learned from generated ones.

    It predicts the second half of the frames from the first. Four fifths are learned from, it is stopped where it suits
    the last fifth of the generated best.

    Args:
      generated: trajectories, channels last.
      real: of the data.
      key: of initial parameters and batches.
      steps: of training.
    Returns:
      the mean square, in units of the variance of the real ones, channel by channel.
    Raises:
      ValueError: trajectories of different shapes, of one frame, or fewer than five.
    """
    if generated.shape[1:] != real.shape[1:] or real.shape[1] < 2 or len(generated) < 5:
        raise ValueError(
            f"expected trajectories of one shape, two frames and five or more, got {generated.shape} and {real.shape}"
        )
    half = real.shape[1] // 2
    learned, tested = (
        _Labelled(_flat(part[:, :half]), _flat(part[:, half:])) for part in _standard(real, generated, real)
    )
    cut = 4 * len(generated) // 5
    train, watched = (jax.tree.map(lambda leaf: leaf[at], learned) for at in (slice(None, cut), slice(cut, None)))
    return _best_on(train, watched, tested, key, _square, steps)[1]
