"""Hyperparameters, noise and dissipation by marginal likelihood, and the posterior that follows."""

from math import exp
from statistics import NormalDist
from typing import NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from phdme_jax.gp.basis import Basis, Box, Energy, Kernel, prior_deviations
from phdme_jax.gp.compression import CompressedObservations, whiten
from phdme_jax.gp.observations import Observations
from phdme_jax.numerics.minimise import minimise

Rows = Observations | CompressedObservations


class Hyperparameters(NamedTuple):
    """Logarithms of everything the marginal likelihood learns.

    Attributes:
      lengthscale: per field, relative to the box's half width.
      amplitude: prior standard deviation of each field's own part of the energy density.
      pair_amplitude: of each pair's part.
      stiffness: quadratic prior mean kappa per field.
      state_noise: standard deviation of the noise of each group of rows (the states of each field, in the rows of rates
        and of differences).
      rate_noise: standard deviation of the error of the rates in each group.
      dissipation: dissipation parameters in the structure's order.
    """

    lengthscale: Float[Array, "field"]
    amplitude: Float[Array, "field"]
    pair_amplitude: Float[Array, "pair"]
    stiffness: Float[Array, "field"]
    state_noise: Float[Array, "group"]
    rate_noise: Float[Array, "group"]
    dissipation: Float[Array, "parameter"]


class EnergyPosterior(NamedTuple):
    """Posterior over energies, and over the dissipation parameters where they are uncertain too.

        weights = mean + F xi,   log parameter = log found + s^T xi_d,   xi ~ N(0, I),   xi_d the last of xi

    Attributes:
      mean: posterior mean, itself an energy.
      factor: F with weight covariance F F^T, the first columns upper triangular, no diagonal negative: there is one
        such root, so that a key draws the same energy on every machine; one more column for each uncertain parameter,
        how the weights go with it, shape (weight, weight + parameter).
      parameters: learned dissipation parameters by name.
      hyperparameters: the logarithms found.
      objective: negative log marginal likelihood at the end, the hyperprior left out.
      ok: everything finite.
      spread: s of each dissipation parameter by name, shape (parameter,); empty where they are taken as known.
    """

    mean: Energy
    factor: Float[Array, "weight noise"]
    parameters: dict[str, Float[Array, ""]]
    hyperparameters: Hyperparameters
    objective: Float[Array, ""]
    ok: Bool[Array, ""]
    spread: dict[str, Float[Array, "parameter"]] = {}  # noqa: RUF012


# noise below this fraction of the smallest half width is not resolved: it keeps the factorisations well conditioned
NOISE_FLOOR = 1e-6


def kernel_of(hyperparameters: Hyperparameters, box: Box) -> Kernel:
    """Kernel in physical units."""
    return Kernel(
        lengthscale=jnp.exp(hyperparameters.lengthscale) * box.half_width,
        amplitude=jnp.exp(hyperparameters.amplitude),
        pair_amplitude=jnp.exp(hyperparameters.pair_amplitude),
    )


def _whitened(basis: Basis, box: Box, observations: Rows, hyper: Hyperparameters) -> tuple[Array, Array, Array, Array]:
    """Design scaled by prior and noise, scaled residual of the prior mean, prior deviations, log noise determinant."""
    floor = (NOISE_FLOOR * jnp.min(box.half_width)) ** 2

    def variance(group: Array, state_share: Array, rate_share: Array, fixed: Array) -> Array:
        state = (jnp.exp(2 * hyper.state_noise) + floor)[group] * state_share
        return state + (jnp.exp(2 * hyper.rate_noise) + floor)[group] * rate_share + fixed

    factors = jnp.concatenate([jnp.ones_like(hyper.stiffness[:1]), jnp.exp(hyper.dissipation)])
    white = whiten(observations, factors, variance)
    deviations = prior_deviations(basis, box, kernel_of(hyper, box))
    sines, quadratics = white.design[:, : basis.size], white.design[:, basis.size :]
    return sines * deviations, white.target - quadratics @ jnp.exp(hyper.stiffness), deviations, white.log_determinant


@jax.custom_jvp
def _evidence(scaled: Array, residual: Array) -> Array:
    """Negative log density of the residual, weights and noise of unit variance, without the constant.

        1/2 r^T (I + S S^T)^-1 r + 1/2 log det(I + S S^T),

    by QR factorisation of [S; I], or of [S^T; I] where rows are fewer: nothing is squared.
    """
    return _evidence_and_slopes(scaled, residual)[0]


def _evidence_and_slopes(scaled: Array, residual: Array) -> tuple[Array, Array, Array]:
    rows, size = scaled.shape
    upper = scaled if rows > size else scaled.T
    orthogonal, root = jnp.linalg.qr(jnp.concatenate([upper, jnp.eye(upper.shape[1], dtype=scaled.dtype)]))
    top, bottom = orthogonal[: upper.shape[0]], orthogonal[upper.shape[0] :]
    # bottom is the inverse of the root, and top is the upper part times that inverse
    leverage = top @ bottom.T
    if rows > size:
        weights = bottom @ (top.T @ residual)
        misfit = residual - scaled @ weights
    else:
        leverage = leverage.T
        misfit = bottom @ (bottom.T @ residual)
        weights = scaled.T @ misfit
    value = 0.5 * (misfit @ misfit + weights @ weights) + jnp.sum(jnp.log(jnp.abs(jnp.diagonal(root))))
    return value, leverage - misfit[:, None] * weights, misfit


@_evidence.defjvp
def _evidence_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    # the factors give the slopes for one product; differentiating the factorisation itself would cost several
    value, slope, misfit = _evidence_and_slopes(*primals)
    return value, jnp.sum(slope * tangents[0]) + misfit @ tangents[1]


def negative_log_likelihood(
    basis: Basis, box: Box, observations: Rows, hyperparameters: Hyperparameters
) -> Float[Array, ""]:
    """Negative log marginal likelihood of the rows, weights integrated out.

        -log N(y; Phi_q kappa, Phi Lambda Phi^T + Sigma)

    Args:
      basis: sizes.
      box: where the basis lives.
      observations: rows, compressed or not.
      hyperparameters: where to evaluate.
    Returns:
      scalar, without the constant n log(2 pi)/2.
    Source: Rasmussen and Williams (2006), equation 2.30, in the smaller of the row and the weight space.
    """
    scaled, residual, _, log_determinant = _whitened(basis, box, observations, hyperparameters)
    return _evidence(scaled, residual) + 0.5 * log_determinant


def condition(
    basis: Basis,
    box: Box,
    observations: Rows,
    hyperparameters: Hyperparameters,
    parameters: tuple[str, ...],
    widths: Float[Array, "parameter"] | None = None,
) -> EnergyPosterior:
    """Posterior over the energy at given hyperparameters, by a QR factorisation of [scaled rows; identity].

    Dissipation parameters that are uncertain have a column more each, the slope of the rows in their logarithms at the
    mean energy: Laplace's approximation of energy and dissipation together, curvature by Gauss and Newton.

    Args:
      basis: sizes.
      box: where the basis lives.
      observations: rows.
      hyperparameters: logarithms of all hyperparameters.
      parameters: names of the dissipation parameters.
      widths: standard deviations of the logarithms of the dissipation parameters under the hyperprior; None takes the
        parameters as known.
    Returns:
      the posterior; `ok` is false where something is not finite.
    """
    scaled, residual, deviations, _ = _whitened(basis, box, observations, hyperparameters)
    size = basis.size
    stacked = jnp.concatenate([scaled, jnp.eye(size, dtype=scaled.dtype)])
    orthogonal, root = jnp.linalg.qr(stacked)
    weights = jax.scipy.linalg.solve_triangular(root, orthogonal[: residual.shape[0]].T @ residual)
    mean = Energy(box, jnp.exp(hyperparameters.stiffness), deviations * weights)
    spread = {}
    if widths is not None and parameters:

        def misfit(logarithms: Array) -> Array:
            moved = hyperparameters._replace(dissipation=logarithms)
            design, target, *_ = _whitened(basis, box, observations, moved)
            return design @ weights - target

        slopes = jax.jacfwd(misfit)(hyperparameters.dissipation)
        slopes = jnp.concatenate([slopes, jnp.zeros((size, len(parameters)), slopes.dtype)])
        # what the weights cannot make up for is all that tells of the dissipation
        along = orthogonal.T @ slopes
        known = jnp.diag(1.0 / jnp.maximum(widths, 1e-8)).astype(slopes.dtype)
        corner = jnp.linalg.qr(jnp.concatenate([slopes - orthogonal @ along, known]), mode="r")
        nothing = jnp.zeros((len(parameters), size), root.dtype)
        root = jnp.block([[root, along], [nothing, corner]])
    signs = jnp.diag(jnp.where(jnp.diagonal(root) < 0, -1, 1).astype(root.dtype))  # those of a QR are rounding's affair
    inverse = jax.scipy.linalg.solve_triangular(root, signs)
    factor = deviations[:, None] * inverse[:size]
    if root.shape[0] > size:
        spread = dict(zip(parameters, inverse[size:, size:], strict=True))
    ok = jnp.all(jnp.isfinite(inverse)) & jnp.all(jnp.isfinite(mean.weights))
    return EnergyPosterior(
        mean=mean,
        factor=factor,
        parameters=dict(zip(parameters, jnp.exp(hyperparameters.dissipation), strict=True)),
        hyperparameters=hyperparameters,
        objective=negative_log_likelihood(basis, box, observations, hyperparameters),
        ok=ok,
        spread=spread,
    )


def dissipation_intervals(posterior: EnergyPosterior, level: float = 0.9) -> dict[str, tuple[float, float]]:
    """Posterior interval of each dissipation parameter, the same probability on both sides.

    Kernel, stiffness and noise are held at their optimum.

    Args:
      posterior: of a fit.
      level: probability inside.
    Returns:
      lower and upper end by name; nothing where the parameters are taken as known.
    """
    quantile = NormalDist().inv_cdf(0.5 + 0.5 * level)
    widths = {name: quantile * float(jnp.linalg.norm(spread)) for name, spread in posterior.spread.items()}
    best = posterior.parameters
    return {name: (float(best[name]) * exp(-width), float(best[name]) * exp(width)) for name, width in widths.items()}


def initial_hyperparameters(basis: Basis, box: Box, num_parameters: int, noise: float = 1e-2) -> Hyperparameters:
    """Where the search starts: lengthscale half a box, unit stiffness, small interaction, 1 % noise, damping 0.03."""
    dtype = box.half_width.dtype

    def full(count: int, value: float) -> Array:
        return jnp.full((count,), jnp.log(value), dtype)

    fields = basis.num_fields
    return Hyperparameters(
        lengthscale=full(fields, 0.5),
        amplitude=full(fields, 1.0),
        pair_amplitude=full(len(basis.pairs), 0.1),
        stiffness=full(fields, 1.0),
        state_noise=jnp.log(noise * box.half_width),
        rate_noise=jnp.log(noise * box.half_width),
        dissipation=full(num_parameters, 0.03),
    )


# standard deviations of the logarithms under the hyperprior
WIDTHS = Hyperparameters(0.7, 1.5, 2.0, 1.0, 4.0, 4.0, 2.0)  # type: ignore[arg-type]


class Hyperprior(NamedTuple):
    """Independent Gaussians on the logarithms; a width of zero holds a logarithm at its centre."""

    centre: Hyperparameters
    widths: Hyperparameters = WIDTHS


def _complete(basis: Basis, prior: Hyperparameters | Hyperprior) -> Hyperprior:
    """The hyperprior around a start; the stiffness of a known field does not move."""
    centre, widths = prior if isinstance(prior, Hyperprior) else Hyperprior(prior)
    full = jax.tree.map(lambda leaf, width: width * jnp.ones_like(leaf), centre, widths)
    learned = np.array([basis.shape(field) != "known" for field in range(basis.num_fields)])
    return Hyperprior(centre, full._replace(stiffness=full.stiffness * learned))


def _at(prior: Hyperprior, standard: Hyperparameters) -> Hyperparameters:
    """Logarithms from deviations in units of the hyperprior's widths."""
    return jax.tree.map(lambda u, centre, width: centre + width * u, standard, *prior)


def sample_hyperparameters(
    basis: Basis,
    box: Box,
    observations: Rows,
    prior: Hyperparameters | Hyperprior,
    optimum: Hyperparameters,
    count: int,
    key: Array,
) -> Hyperparameters:
    """Draw hyperparameters, dissipation included, by importance resampling of Laplace's approximation.

        u ~ N(u_opt, (3/2)^2 (I + d^2 NLL / du^2)^-1),   resampled by exp(-NLL(u) - |u|^2 / 2) / N(u)

    in units of the hyperprior's widths; directions in which the likelihood is not convex keep the hyperprior's width.
    Candidates are wider than the approximation, to reach skewed tails, and 64 for every draw. `condition` at a draw
    gives the energy that goes with it.

    Args:
      basis: sizes of the basis.
      box: where it lives.
      observations: rows.
      prior: what `fit` was given.
      optimum: logarithms that `fit` found.
      count: number of draws.
      key: random key.
    Returns:
      logarithms with a leading axis of draws; draws may repeat.
    Source: MacKay (1992), Neural Computation 4, 415-447; Rubin (1987), J. Am. Stat. Assoc. 82, 543-546.
    """
    prior = _complete(basis, prior)
    standard = jax.tree.map(
        lambda leaf, centre, width: jnp.where(width > 0, (leaf - centre) / jnp.where(width > 0, width, 1.0), 0.0),
        optimum,
        *prior,
    )
    best, unflatten = jax.flatten_util.ravel_pytree(standard)

    def misfit(u: Array) -> Array:
        return negative_log_likelihood(basis, box, observations, _at(prior, unflatten(u)))

    values, axes = jnp.linalg.eigh(jax.hessian(misfit)(best))
    # the symmetric root: draws must not depend on the signs of axes, which rounding decides
    spread = (axes * jax.lax.rsqrt(1.0 + jnp.maximum(values, 0.0))) @ axes.T
    noise_key, choice_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, (64 * count, best.size), best.dtype)
    candidates = best + 1.5 * noise @ spread
    logits = jnp.sum(noise**2 - candidates**2, axis=-1) / 2 - jax.lax.map(misfit, candidates, batch_size=count)
    logits = jnp.where(jnp.isfinite(logits), logits, -jnp.inf)
    chosen = jax.random.categorical(choice_key, logits, shape=(count,))
    return jax.vmap(lambda u: _at(prior, unflatten(u)))(candidates[chosen])


def fit(
    basis: Basis,
    box: Box,
    observations: Rows,
    start: Hyperparameters | Hyperprior,
    parameters: tuple[str, ...],
    max_iterations: int = 1000,
    tolerance: float = 1e-7,
) -> EnergyPosterior:
    """Learn hyperparameters, noise and dissipation by marginal likelihood, then condition.

    BFGS on the logarithms, under a Gaussian hyperprior centred at the start that keeps the search finite where the
    data are silent; everything inside one compiled loop.

    Args:
      basis: sizes.
      box: where the basis lives.
      observations: rows, which `compress` makes cheaper where they are many; float64 is recommended.
      start: logarithms from which the search starts, or a whole hyperprior.
      parameters: names of the dissipation parameters.
      max_iterations: at the most; each evaluates the likelihood and its gradient once.
      tolerance: decrease of the objective still to be expected that ends the search [nats].
    Returns:
      the posterior at the optimum, the dissipation's own uncertainty included.
    """
    prior = _complete(basis, start)

    zero, unflatten = jax.flatten_util.ravel_pytree(jax.tree.map(jnp.zeros_like, prior.centre))

    def objective(standard: Array) -> Array:
        misfit = negative_log_likelihood(basis, box, observations, _at(prior, unflatten(standard)))
        return misfit + 0.5 * standard @ standard

    standard, _, _ = minimise(objective, zero, max_evaluations=max_iterations, tolerance=tolerance)
    return condition(basis, box, observations, _at(prior, unflatten(standard)), parameters, prior.widths.dissipation)
