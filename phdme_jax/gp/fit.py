"""Hyperparameters, noise and dissipation by marginal likelihood, and the posterior that follows."""

from typing import NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from phdme_jax.gp.basis import Basis, Box, Energy, Kernel, prior_deviations
from phdme_jax.gp.observations import Observations


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
    """Posterior over energies.

    Attributes:
      mean: posterior mean, itself an energy.
      factor: F with weight covariance F F^T, shape (weight, weight).
      parameters: learned dissipation parameters by name.
      hyperparameters: the logarithms found.
      objective: negative log marginal likelihood plus hyperprior at the end.
      ok: everything finite.
    """

    mean: Energy
    factor: Float[Array, "weight weight"]
    parameters: dict[str, Float[Array, ""]]
    hyperparameters: Hyperparameters
    objective: Float[Array, ""]
    ok: Bool[Array, ""]


# noise below this fraction of the smallest half width is not resolved: it keeps the factorisations well conditioned
NOISE_FLOOR = 1e-6


def kernel_of(hyperparameters: Hyperparameters, box: Box) -> Kernel:
    """Kernel in physical units."""
    return Kernel(
        lengthscale=jnp.exp(hyperparameters.lengthscale) * box.half_width,
        amplitude=jnp.exp(hyperparameters.amplitude),
        pair_amplitude=jnp.exp(hyperparameters.pair_amplitude),
    )


def _whitened(
    basis: Basis, box: Box, observations: Observations, hyper: Hyperparameters
) -> tuple[Array, Array, Array, Array]:
    """Design scaled by prior and noise, scaled residual of the prior mean, prior deviations, log noise variance."""
    factors = jnp.concatenate([jnp.ones_like(hyper.stiffness[:1]), jnp.exp(hyper.dissipation)])
    design = jnp.tensordot(factors, observations.design, axes=1)
    group = observations.group
    floor = (NOISE_FLOOR * jnp.min(box.half_width)) ** 2
    variance = (
        (jnp.exp(2 * hyper.state_noise) + floor)[group] * observations.state_share
        + (jnp.exp(2 * hyper.rate_noise) + floor)[group] * observations.rate_share
        + observations.fixed
    )
    scale = jax.lax.rsqrt(variance)
    deviations = prior_deviations(basis, box, kernel_of(hyper, box))
    sines, quadratics = design[:, : basis.size], design[:, basis.size :]
    residual = (observations.target - quadratics @ jnp.exp(hyper.stiffness)) * scale
    return sines * scale[:, None] * deviations, residual, deviations, jnp.log(variance)


def negative_log_likelihood(
    basis: Basis, box: Box, observations: Observations, hyperparameters: Hyperparameters
) -> Float[Array, ""]:
    """Negative log marginal likelihood of the rows, weights integrated out.

        -log N(y; Phi_q kappa, Phi Lambda Phi^T + Sigma)

    Args:
      basis: sizes.
      box: where the basis lives.
      observations: rows.
      hyperparameters: where to evaluate.
    Returns:
      scalar, without the constant n log(2 pi)/2.
    Source: Rasmussen and Williams (2006), equation 2.30, in the smaller of the row and the weight space.
    """
    scaled, residual, _, log_variance = _whitened(basis, box, observations, hyperparameters)
    rows, size = scaled.shape
    if rows <= size:
        root = jnp.linalg.cholesky(scaled @ scaled.T + jnp.eye(rows, dtype=scaled.dtype))
        solved = jax.scipy.linalg.solve_triangular(root, residual, lower=True)
        quadratic = solved @ solved
    else:
        root = jnp.linalg.cholesky(scaled.T @ scaled + jnp.eye(size, dtype=scaled.dtype))
        weights = jax.scipy.linalg.cho_solve((root, True), scaled.T @ residual)
        misfit = residual - scaled @ weights
        quadratic = misfit @ misfit + weights @ weights
    return 0.5 * (quadratic + jnp.sum(log_variance)) + jnp.sum(jnp.log(jnp.diagonal(root)))


def condition(
    basis: Basis,
    box: Box,
    observations: Observations,
    hyperparameters: Hyperparameters,
    parameters: tuple[str, ...],
) -> EnergyPosterior:
    """Posterior over the energy at given hyperparameters, by a QR factorisation of [scaled rows; identity].

    Args:
      basis: sizes.
      box: where the basis lives.
      observations: rows.
      hyperparameters: logarithms of all hyperparameters.
      parameters: names of the dissipation parameters.
    Returns:
      the posterior; `ok` is false where something is not finite.
    """
    scaled, residual, deviations, _ = _whitened(basis, box, observations, hyperparameters)
    size = basis.size
    stacked = jnp.concatenate([scaled, jnp.eye(size, dtype=scaled.dtype)])
    orthogonal, root = jnp.linalg.qr(stacked)
    weights = jax.scipy.linalg.solve_triangular(root, orthogonal[: residual.shape[0]].T @ residual)
    factor = deviations[:, None] * jax.scipy.linalg.solve_triangular(root, jnp.eye(size, dtype=root.dtype))
    mean = Energy(box, jnp.exp(hyperparameters.stiffness), deviations * weights)
    ok = jnp.all(jnp.isfinite(factor)) & jnp.all(jnp.isfinite(mean.weights))
    return EnergyPosterior(
        mean=mean,
        factor=factor,
        parameters=dict(zip(parameters, jnp.exp(hyperparameters.dissipation), strict=True)),
        hyperparameters=hyperparameters,
        objective=negative_log_likelihood(basis, box, observations, hyperparameters),
        ok=ok,
    )


def initial_hyperparameters(
    basis: Basis, box: Box, num_parameters: int, noise: float = 1e-2
) -> Hyperparameters:
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
WIDTHS = Hyperparameters(0.7, 1.5, 2.0, 1.0, 4.0, 4.0, 2.0)


def _widths(basis: Basis, box: Box) -> Hyperparameters:
    """Widths of the hyperprior; the stiffness of a known field does not move."""
    learned = np.array([basis.shape(field) != "known" for field in range(basis.num_fields)])
    return WIDTHS._replace(stiffness=jnp.asarray(WIDTHS.stiffness * learned, box.half_width.dtype))


def sample_hyperparameters(
    basis: Basis, box: Box, observations: Observations, optimum: Hyperparameters, count: int, key: Array
) -> Hyperparameters:
    """Draw hyperparameters, dissipation among them, from Laplace's approximation at the optimum of `fit`.

        eta ~ N(eta_opt, W (I + W (d^2 NLL / d eta^2) W)^-1 W),   W the widths of the hyperprior

    Directions in which the likelihood is not convex keep the hyperprior's width. `condition` at each draw gives the
    energies that go with it.

    Args:
      basis: sizes of the basis.
      box: where it lives.
      observations: rows.
      optimum: logarithms found by `fit`.
      count: number of draws.
      key: random key.
    Returns:
      logarithms with a leading axis of draws.
    Source: MacKay (1992), Neural Computation 4, 415-447.
    """
    flat, unflatten = jax.flatten_util.ravel_pytree(optimum)
    full = jax.tree.map(lambda leaf, width: width * jnp.ones_like(leaf), optimum, _widths(basis, box))
    widths, _ = jax.flatten_util.ravel_pytree(full)
    hessian = jax.hessian(lambda u: negative_log_likelihood(basis, box, observations, unflatten(flat + widths * u)))
    values, axes = jnp.linalg.eigh(hessian(jnp.zeros_like(flat)))
    spread = widths[:, None] * axes * jax.lax.rsqrt(1.0 + jnp.maximum(values, 0.0))
    noise = jax.random.normal(key, (count, flat.size), flat.dtype)
    return jax.vmap(unflatten)(flat + noise @ spread.T)


def fit(
    basis: Basis,
    box: Box,
    observations: Observations,
    start: Hyperparameters,
    parameters: tuple[str, ...],
    max_iterations: int = 60,
    tolerance: float = 1e-2,
) -> EnergyPosterior:
    """Learn hyperparameters, noise and dissipation by marginal likelihood, then condition.

    L-BFGS on the logarithms, under a Gaussian hyperprior centred at the start that keeps the search finite where the
    data are silent; everything inside one compiled loop.

    Args:
      basis: sizes.
      box: where the basis lives.
      observations: rows; float64 is recommended.
      start: logarithms from which the search starts.
      parameters: names of the dissipation parameters.
      max_iterations: L-BFGS iterations at the most.
      tolerance: norm of the gradient (in units of the hyperprior's widths) that ends the search.
    Returns:
      the posterior at the optimum.
    """
    widths = _widths(basis, box)

    def actual(standard: Hyperparameters) -> Hyperparameters:
        return jax.tree.map(lambda u, centre, width: centre + width * u, standard, start, widths)

    def objective(standard: Hyperparameters) -> Array:
        prior = 0.5 * optax.tree.norm(standard, squared=True)
        return negative_log_likelihood(basis, box, observations, actual(standard)) + prior

    solver = optax.lbfgs(memory_size=15)
    value_and_grad = optax.value_and_grad_from_state(objective)

    def body(carry: tuple) -> tuple:
        standard, state, _, count = carry
        value, grad = value_and_grad(standard, state=state)
        updates, state = solver.update(grad, state, standard, value=value, grad=grad, value_fn=objective)
        return optax.apply_updates(standard, updates), state, optax.tree.norm(grad), count + 1

    def unfinished(carry: tuple) -> Array:
        _, _, norm, count = carry
        return (count < max_iterations) & (norm > tolerance) & jnp.isfinite(norm)

    zero = jax.tree.map(jnp.zeros_like, start)
    infinite = jnp.asarray(jnp.finfo(box.half_width.dtype).max)
    standard, _, _, _ = jax.lax.while_loop(unfinished, body, (zero, solver.init(zero), infinite, 0))
    return condition(basis, box, observations, actual(standard), parameters)
