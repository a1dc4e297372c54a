"""Exact Gaussian process on the energy density, conditioned on measured rates at few sites.

    y = M grad h + noise,   h ~ GP(h_0, k),   K = M K_grad M^T + Sigma

M holds the structure's operator (J - R) at the observed sites: a row is a sparse combination of efforts at the states
of a site's stencil. The cost is cubic in the number of rows and quadratic in the number of stencil states; the
reduced-rank path costs less for many rows and this one is its oracle. Energies drawn from the posterior are functions
in closed form (Matheron's rule with random Fourier features), so that each is a whole port-Hamiltonian system.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from phdme_jax.gp.basis import Kernel
from phdme_jax.gp.kernels import additive_squared_exponential
from phdme_jax.gp.observations import _operator_blocks
from tests.gp.site_energy import SiteEnergy, draw_prior, site_efforts

Flow = Callable[[Array, dict[str, Array]], Array]


class SiteRows(NamedTuple):
    """Linear functionals of grad h, gathered by site: row (s, r) is sum_jb coefficients[s, r, j, b] e_b(states[s, j]).

    Attributes:
      states: states of each site's stencil, shape (site, support, field).
      coefficients: operator rows, shape (site, row, support, field).
      target: observed values, shape (site, row).
      variance: variance of their noise, shape (site, row).
    """

    states: Float[Array, "site support field"]
    coefficients: Float[Array, "site row support field"]
    target: Float[Array, "site row"]
    variance: Float[Array, "site row"]


class ExactPosterior(NamedTuple):
    """Posterior over energies, given rows.

    Attributes:
      mean: posterior mean, itself an energy.
      rows: what it was conditioned on.
      root: lower Cholesky factor of the covariance of the observed rows, shape (datum, datum).
      negative_log_likelihood: of the rows, without the constant n log(2 pi)/2.
      ok: everything finite.
    """

    mean: SiteEnergy
    rows: SiteRows
    root: Float[Array, "datum datum"]
    negative_log_likelihood: Float[Array, ""]
    ok: Bool[Array, ""]


def rate_rows(
    flow: Flow,
    parameters: dict[str, Float[Array, ""]],
    states: Float[Array, "frame grid field"],
    rates: Float[Array, "frame grid field"],
    sites: Int[Array, "site index"],
    rate_noise: Float[Array, "field"],
) -> SiteRows:
    """Rows of measured rates: x_t(z_i, t_k) = [(J - R(theta)) grad h(x(., t_k))]_i, on the operator's stencil only.

    Args:
      flow: (efforts, parameters) -> rates of the structure, linear in the efforts and affine in the parameters.
      parameters: values of its dissipation parameters; they may be traced.
      states: observed states.
      rates: observed time derivatives of the same frames.
      sites: (frame, grid) index of each site, not traced, shape (site, 2).
      rate_noise: standard deviation of each field's rates.
    Returns:
      one row per field and site.
    """
    frames, points = np.asarray(sites).T
    _, num_points, num_fields = states.shape
    with jax.ensure_compile_time_eval():
        identity = jnp.eye(num_points * num_fields, dtype=states.dtype).reshape(num_points, num_fields, -1)
        blocks = np.asarray(jax.jit(lambda e: _operator_blocks(flow, tuple(parameters), e))(identity))
    blocks = blocks[:, points].reshape(len(blocks), len(points), num_fields, num_points, num_fields)
    touched = np.any(blocks != 0, axis=(0, 2, 4))
    # the stencil first, then, where a stencil is smaller than the largest, points of coefficient zero
    support = np.argsort(~touched, axis=1, kind="stable")[:, : max(1, touched.sum(axis=1).max())]
    chosen = np.take_along_axis(blocks, support[None, :, None, :, None], axis=3)
    factors = jnp.stack([jnp.ones((), states.dtype), *parameters.values()])
    return SiteRows(
        states=states[frames[:, None], support],
        coefficients=jnp.tensordot(factors, jnp.asarray(chosen, states.dtype), axes=1),
        target=rates[frames, points],
        variance=jnp.broadcast_to(rate_noise**2, (len(points), num_fields)),
    )


def effort_rows(states: Float[Array, "point field"], deviation: float = 0.0) -> SiteRows:
    """Rows that are the efforts themselves, with target zero: points to predict at, or the gauge anchor at rest.

    Args:
      states: states at which the efforts are taken.
      deviation: standard deviation with which the efforts are held at zero [effort].
    Returns:
      one row per field and state.
    """
    zero = jnp.zeros_like(states)
    identity = jnp.broadcast_to(jnp.eye(states.shape[1], dtype=states.dtype), (len(states), *[states.shape[1]] * 2))
    return SiteRows(states[:, None], identity[:, :, None], zero, jnp.full_like(zero, deviation**2))


def concatenate_rows(parts: list[SiteRows]) -> SiteRows:
    """Stack several sets of rows; stencils are padded with coefficients zero to the largest."""
    widest = max(part.states.shape[1] for part in parts)

    def padded(part: SiteRows) -> SiteRows:
        extra = widest - part.states.shape[1]
        return part._replace(
            states=jnp.pad(part.states, ((0, 0), (0, extra), (0, 0)), mode="edge"),
            coefficients=jnp.pad(part.coefficients, ((0, 0), (0, 0), (0, extra), (0, 0))),
        )

    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *map(padded, parts))


def row_covariance(kernel: Kernel, left: SiteRows, right: SiteRows) -> Float[Array, "datum other"]:
    """Prior covariance M K_grad M'^T of two sets of rows, cross-covariances between stencil states included."""

    def block(a: SiteRows, b: SiteRows) -> Array:
        pair = jax.vmap(jax.vmap(lambda x, y: additive_squared_exponential(x, y, kernel).cross, (None, 0)), (0, None))
        return jnp.einsum("ria,ijab,sjb->rs", a.coefficients, pair(a.states, b.states), b.coefficients)

    blocks = jax.vmap(jax.vmap(block, (None, 0)), (0, None))(left, right)
    return jnp.moveaxis(blocks, 1, 2).reshape(left.target.size, right.target.size)


def condition_exact(
    kernel: Kernel, stiffness: Float[Array, "field"], centre: Float[Array, "field"], rows: SiteRows
) -> ExactPosterior:
    """Posterior over energies given rows, at fixed hyperparameters.

        E grad h(x) = diag(kappa)(x - c) + K_grad(x, X) M^T K^{-1} (y - M diag(kappa)(X - c))

    Args:
      kernel: hyperparameters of the prior, in physical units.
      stiffness: kappa of the quadratic prior mean.
      centre: state at rest.
      rows: observations, the gauge anchor included (`effort_rows` at rest with a small deviation); float64.
    Returns:
      the posterior; `ok` is false where something is not finite.
    """
    covariance = row_covariance(kernel, rows, rows) + jnp.diag(rows.variance.ravel())
    root = jnp.linalg.cholesky(covariance)
    residual = jnp.ravel(rows.target - _prior_mean(rows, stiffness, centre))
    solved = jax.scipy.linalg.cho_solve((root, True), residual)
    none = jnp.zeros((0, centre.shape[0]), centre.dtype)
    sources, strengths = _sources(rows, solved)
    mean = SiteEnergy(centre, stiffness, kernel, sources, strengths, none, none[:, 0], none[:, 0])
    objective = 0.5 * residual @ solved + jnp.sum(jnp.log(jnp.diagonal(root)))
    return ExactPosterior(mean, rows, root, objective, jnp.all(jnp.isfinite(solved)) & jnp.isfinite(objective))


def _prior_mean(rows: SiteRows, stiffness: Array, centre: Array) -> Array:
    return jnp.einsum("srjb,sjb->sr", rows.coefficients, stiffness * (rows.states - centre))


def _sources(rows: SiteRows, solved: Array) -> tuple[Array, Array]:
    """States and strengths M^T v of the kernel functions that v weights."""
    strengths = jnp.einsum("srjb,sr->sjb", rows.coefficients, solved.reshape(rows.target.shape))
    return rows.states.reshape(-1, rows.states.shape[-1]), strengths.reshape(-1, strengths.shape[-1])


def predict_rows(
    posterior: ExactPosterior, rows: SiteRows
) -> tuple[Float[Array, "datum"], Float[Array, "datum datum"]]:
    """Posterior mean and covariance of noise-free rows: efforts (`effort_rows`) or rates (J - R) grad h (`rate_rows`).

        Cov = M_* K_grad M_*^T - M_* K_grad M^T K^{-1} M K_grad M_*^T

    The diagonal for rate rows is the variance of the residual x_t - (J - R) grad h that the uncertain energy causes.

    Args:
      posterior: posterior over energies.
      rows: what to predict; targets and variances are not used.
    Returns:
      mean and covariance, rows in the order (site, row).
    """
    kernel, mean = posterior.mean.kernel, posterior.mean
    values = jnp.einsum("srjb,sjb->sr", rows.coefficients, site_efforts(mean, rows.states))
    half = jax.scipy.linalg.solve_triangular(posterior.root, row_covariance(kernel, posterior.rows, rows), lower=True)
    return jnp.ravel(values), row_covariance(kernel, rows, rows) - half.T @ half


def density_covariance(posterior: ExactPosterior, states: Float[Array, "point field"]) -> Float[Array, "point point"]:
    """Posterior covariance of the energy density h(x) - h(c) at points; `site_density` of the mean gives its mean.

    Args:
      posterior: posterior over energies.
      states: points.
    Returns:
      covariance, shape (point, point) [energy density squared].
    """
    kernel, centre = posterior.mean.kernel, posterior.mean.centre
    points = jnp.concatenate([states, centre[None]])

    def from_rest(covariance: Array) -> Array:
        return covariance[:-1] - covariance[-1:]

    over = jax.vmap(jax.vmap(lambda x, y: additive_squared_exponential(x, y, kernel), (None, 0)), (0, None))
    prior = from_rest(from_rest(over(points, points).value).T)
    rows = posterior.rows
    sources = rows.states.reshape(-1, centre.shape[0])
    right = over(points, sources).right.reshape(len(points), *rows.states.shape)
    data = from_rest(jnp.einsum("psjb,srjb->psr", right, rows.coefficients).reshape(len(points), -1))
    half = jax.scipy.linalg.solve_triangular(posterior.root, data.T, lower=True)
    return prior - half.T @ half


def sample_exact(posterior: ExactPosterior, num_waves: int, key: Array) -> SiteEnergy:
    """Draw one energy from the posterior, as a function (Matheron's rule).

        h = g + cov(h, y) K^{-1} (y - M grad g - epsilon),   g a draw from the prior, epsilon one of the noise

    Args:
      posterior: posterior over energies.
      num_waves: waves M for each part (field or pair) of the additive kernel.
      key: random key.
    Returns:
      an energy.
    Source: Wilson et al. (2020), arXiv 2002.09309, equation 13.
    """
    wave_key, noise_key = jax.random.split(key)
    mean, rows = posterior.mean, posterior.rows
    prior = draw_prior(mean.centre, mean.stiffness, mean.kernel, num_waves, wave_key)
    drawn = jnp.einsum("srjb,sjb->sr", rows.coefficients, site_efforts(prior, rows.states))
    noise = jnp.sqrt(rows.variance) * jax.random.normal(noise_key, rows.target.shape, rows.target.dtype)
    solved = jax.scipy.linalg.cho_solve((posterior.root, True), jnp.ravel(rows.target - drawn - noise))
    sources, strengths = _sources(rows, solved)
    return prior._replace(sources=sources, strengths=strengths)
