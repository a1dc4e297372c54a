"""Feasibilities as penalties on the mean that a denoiser answers with.

    loss += sum_f weight_f J_f / J_f(start),   J_f = E w(t) mean terms_f(x0_hat, x0)^2

    linear:   w = min(1 / r^2, largest)      general:  w = 1 / (1 + r^2)
    all others:  as linear where r <= most_noise, zero elsewhere

r is the noise over the example; 1 / r^2 is how denoising counts a level. Features are not preconditioned: an untrained
network misses all of them at every level, which 1 / r^2 would count at the smallest alone. Several feasibilities of one
form share its weight. Terms that are linear in what is predicted are
told from the clean example's own, which a scheme leaves where it is not the one that made the example: the mean of
examples has that mean. A linear penalty has no gap between the mean of examples and an example, a general one neither:
of it the network answers with the features' mean in channels of its own, and the terms are what it misses of the clean
example's. All others have a gap, which grows with the variance of what the noise leaves open: they are asked where the
noise is small.
Source: Zhou, Wang, Yu (2025), arXiv 2409.00730; weights w and the start as unit are this project's.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from phdme_jax.diffusion.networks import Condition, Network
from phdme_jax.diffusion.schedule import Schedule
from phdme_jax.methods.equations.encoding import decode
from phdme_jax.methods.equations.network import EncodedExample, EquationNetwork
from phdme_jax.numerics.bound import Bound
from phdme_jax.systems.priors import FORMS, Feasibility

AFFINE = ("linear", "multilinear")  # in what is predicted


class PenaltyOptions(NamedTuple):
    """The group `penalties` of the options.

    Attributes:
      weights: of the penalties of each form together, in units of the denoising loss; none of a form that is left out.
      largest: of the weight of a level.
      most_noise: noise over example up to which penalties with a gap are asked.
      probes: examples on which the penalties of an untrained network are measured.
    """

    weights: Mapping[str, float]
    largest: float = 1e4
    most_noise: float = 0.5
    probes: int = 256


def penalty_options(options: Mapping[str, Any], forms: Sequence[str]) -> PenaltyOptions:
    """The group `penalties`; no weights where there is none, or no form is asked for."""
    return PenaltyOptions(**options.get("penalties", {"weights": {}})) if forms else PenaltyOptions({})


def level_weight(schedule: Schedule, form: str, options: PenaltyOptions, t: Float[Array, ""]) -> Float[Array, ""]:
    """Weight w of a penalty at a diffusion time.

    Args:
      schedule: of the noise.
      form: of the feasibility.
      options: see `PenaltyOptions`.
      t: diffusion time.
    Returns:
      w.
    """
    snr = jnp.exp(schedule.log_snr(t))
    if form == "general":
        return snr / (1.0 + snr)
    asked = jnp.ones_like(snr) if form == "linear" else (snr * options.most_noise**2 >= 1.0).astype(snr.dtype)
    return asked * jnp.minimum(snr, options.largest)


def chosen(
    feasibilities: Sequence[Feasibility], options: PenaltyOptions, forms: Sequence[str]
) -> tuple[Feasibility, ...]:
    """Feasibilities of the given forms that have a weight.

    Raises:
      ValueError: a weight of a form that there is not, or a negative one.
    """
    wrong = [form for form, weight in options.weights.items() if form not in FORMS or weight < 0]
    if wrong:
        raise ValueError(f"expected penalties.weights from zero of forms among {FORMS}, got {', '.join(wrong)}")
    return tuple(one for one in feasibilities if one.form in forms and options.weights.get(one.form, 0.0) > 0)


def with_channels(network: Network, count: int) -> Network:
    """A network that answers with `count` channels more than it sees: zeros stand for them in what it sees.

    Args:
      network: any network.
      count: of channels; none leaves it as it is.
    Returns:
      the network, of noisy fields without these channels, whose answer has them last.
    """
    if not count:
        return network
    return Network(
        init=Bound(_init, network.init, count), encode=network.encode, apply=Bound(_apply, network.apply, count)
    )


def _widened(noisy: Array, count: int) -> Array:
    return jnp.pad(noisy, [*[(0, 0)] * (noisy.ndim - 1), (0, count)])


def _init(init: Any, count: int, key: Array, noisy: Array, condition: Condition, *num_levels: int) -> PyTree:
    return init(key, _widened(noisy, count), condition, *num_levels)


def _apply(apply: Any, count: int, params: PyTree, noisy: Array, noise_level: Array, features: Any) -> Array:
    return apply(params, _widened(noisy, count), noise_level, features)


class Features(NamedTuple):
    """Mean and deviation of each feature over frames, places and examples; arrays only."""

    shift: Float[Array, "feature"]
    scale: Float[Array, "feature"]


def features_of(net: EquationNetwork, feasibility: Feasibility, example: EncodedExample) -> Array:
    """Features of an example, physical units."""
    clean, condition = _clean(net, example)
    return feasibility.terms(clean, clean, condition)


def fit_features(net: EquationNetwork, feasibility: Feasibility, examples: EncodedExample) -> Features:
    """Their mean and deviation over examples, leaves with a leading axis."""
    found = jax.vmap(lambda example: features_of(net, feasibility, example))(examples)
    axes = tuple(range(found.ndim - 1))
    return Features(jnp.mean(found, axis=axes), jnp.maximum(jnp.std(found, axis=axes), jnp.finfo(found.dtype).eps))


def _clean(net: EquationNetwork, example: EncodedExample) -> tuple[Array, Array]:
    return decode(example.given.encoding, net.kinds, example.fields), example.given.condition


def penalty_of(
    net: EquationNetwork, feasibility: Feasibility, features: Features | None
) -> Callable[[Array, Array | None, EncodedExample], Float[Array, ""]]:
    """Mean square of a feasibility's terms, less the clean example's own where they are linear in what is predicted.

    Args:
      net: the network.
      feasibility: what is asked.
      features: their sizes, of a general feasibility.
    Returns:
      (predicted fields, normalised, what the network says of the features, clean example) -> the mean square.
    """

    def penalty(predicted: Array, said: Array | None, example: EncodedExample) -> Array:
        if feasibility.form == "general":
            assert said is not None and features is not None
            target = (features_of(net, feasibility, example) - features.shift) / features.scale
            return jnp.mean((said - target) ** 2)
        clean, condition = _clean(net, example)
        terms = feasibility.terms(decode(example.given.encoding, net.kinds, predicted), clean, condition)
        if feasibility.form in AFFINE:
            terms = terms - feasibility.terms(clean, clean, condition)
        return jnp.mean(terms**2)

    return penalty
