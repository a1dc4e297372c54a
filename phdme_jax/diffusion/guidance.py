"""Guidance: transforms of a denoiser into another denoiser, at sampling time and without training.

Each takes `denoise(noisy, t) -> x0_hat` and gives back the same kind of function, so that they can be stacked; the
outermost one has the last word on x0_hat.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from phdme_jax.diffusion.preconditioning import Denoise
from phdme_jax.diffusion.schedule import Schedule


def clamp_known(denoise: Denoise, mask: Bool[Array, "*shape"], values: Float[Array, "*shape"]) -> Denoise:
    """Denoiser whose answer holds the known entries.

        x0_hat -> where(mask, values, x0_hat)

    Args:
      denoise: maps (noisy, t) to x0_hat.
      mask: True where the clean example is known (its first row, its fixed ends).
      values: the known entries, anything elsewhere; normalised units.

    Returns:
      the clamped denoiser.
    """

    def clamped(noisy: Array, t: Array) -> Array:
        return jnp.where(mask, values, denoise(noisy, t))

    return clamped


def residual_guidance(
    denoise: Denoise,
    schedule: Schedule,
    residual_fn: Callable[[Array], Array],
    scale: float | Callable[[Array], Array],
) -> Denoise:
    """Denoiser drawn towards a vanishing residual, through the Jacobian of the denoiser.

        x0_hat -> x0_hat - scale(t) sigma^2/alpha  d/d noisy  |residual(x0_hat(noisy, t))|^2 / 2

    By Tweedie's formula this is the posterior mean given "residual = 0" where the residual given `noisy` is Gaussian
    with mean residual(x0_hat) and variance 1/scale(t): exactly so in a linear-Gaussian world, an approximation
    elsewhere. One call costs a forward and a backward pass through the denoiser.

    Args:
      denoise: maps (noisy, t) to x0_hat; differentiable.
      schedule: the noise schedule.
      residual_fn: maps a clean example to its residual, of any shape; its squares are summed, so an average wants a
        factor 1/sqrt(entries) inside.
      scale: inverse variance of the residual given `noisy`: a number, or a function of the diffusion time such as
        `gaussian_scale`.

    Returns:
      the guided denoiser.

    Source: Chung et al. (2023, diffusion posterior sampling), algorithm 1, there with a scale divided by the residual's
    norm; Song et al. (2023, pseudoinverse guidance), section 3, for a scale that follows the noise level.
    """

    def guided(noisy: Array, t: Array) -> Array:
        def potential(point: Array) -> tuple[Array, Array]:
            x0_hat = denoise(point, t)
            return 0.5 * jnp.sum(residual_fn(x0_hat) ** 2), x0_hat

        gradient, x0_hat = jax.grad(potential, has_aux=True)(noisy)
        alpha, sigma = schedule.alpha_sigma(jnp.asarray(t, noisy.dtype))
        strength = jnp.asarray(scale(t) if callable(scale) else scale, noisy.dtype)
        return x0_hat - strength * (sigma**2 / alpha) * gradient

    return guided


def gaussian_scale(
    schedule: Schedule, noise_variance: float, gain: float = 1.0, data_std: float = 1.0
) -> Callable[[Array], Array]:
    """Scale for `residual_guidance` if the data were independent Gaussians.

        scale(t) = 1 / (noise_variance + gain s^2 r^2/(s^2 + r^2)),    r = sigma/alpha

    Args:
      schedule: the noise schedule.
      noise_variance: variance of the residual of a true example: observation noise or discretisation error, squared.
      gain: squared norm of a row of the residual's derivative with respect to the example.
      data_std: standard deviation s of the clean data.

    Returns:
      function of the diffusion time.

    Source: Song et al. (2023, pseudoinverse guidance), section 3, with the posterior variance of Gaussian data.
    """

    def scale(t: Array) -> Array:
        square = schedule.noise_ratio(t) ** 2
        return 1.0 / (noise_variance + gain * square * data_std**2 / (square + data_std**2))

    return scale


def minimal_residual(
    product: Callable[[Array], tuple[Array, PyTree]], right: Float[Array, "*shape"], iterations: int
) -> tuple[Float[Array, "*shape"], PyTree]:
    """What few products find of the solution of a linear system: GMRES, to which symmetry does not matter.

        x = argmin |A x - b|  over  span(b, A b, ..., A^(n-1) b)

    Args:
      product: x -> A x, and something linear in x that is made on the way.
      right: b.
      iterations: n, products.
    Returns:
      x, and what is made on the way to A x. No residual is larger than b.
    Source: Saad and Schultz (1986), SIAM J. Sci. Stat. Comput. 7, 856-869.
    """
    size, tiny = jnp.sqrt(jnp.sum(right**2)), jnp.finfo(right.dtype).tiny
    first = jnp.ravel(right) / jnp.maximum(size, tiny)
    basis = jnp.zeros((iterations + 1, first.size), right.dtype).at[0].set(first)

    def grow(basis: Array, index: Array) -> tuple[Array, tuple[Array, PyTree]]:
        image, made = product(basis[index].reshape(right.shape))
        rest, column = jnp.ravel(image), jnp.zeros(len(basis), right.dtype)
        for _ in range(2):  # once is not enough where little is left
            along = basis @ rest
            rest, column = rest - along @ basis, column + along
        left = jnp.sqrt(jnp.sum(rest**2))
        enough = left > jnp.finfo(right.dtype).eps * jnp.sqrt(jnp.sum(image**2))
        left = jnp.where(enough, left, 0.0)
        following = jnp.where(enough, rest / jnp.where(enough, left, 1.0), 0.0)
        return basis.at[index + 1].set(following), (column.at[index + 1].add(left), made)

    basis, (columns, made) = jax.lax.scan(grow, basis, jnp.arange(iterations))
    weights, *_ = jnp.linalg.lstsq(columns.T, jnp.zeros(len(basis), right.dtype).at[0].set(size))
    combined = jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, axes=1), made)
    return (weights @ basis[:-1]).reshape(right.shape), combined


def moment_matched(
    denoise: Denoise,
    schedule: Schedule,
    observe: Callable[[Array], Array],
    values: Float[Array, "*observation"],
    noise_variance: Float[Array, "*observation"] | float,
    iterations: int = 5,
) -> Denoise:
    """Denoiser given noisy observations, with the covariance that its own Jacobian says.

        x0_hat -> x0_hat + V H^T (S + H V H^T)^-1 (values - H x0_hat),   V = Cov[x0 | noisy] = sigma^2/alpha J

    by Tweedie's second formula, J the Jacobian of the denoiser, S the noise's variances. Exact in a linear-Gaussian
    world once the iterations have converged; elsewhere x0 given `noisy` is taken for a Gaussian. The Jacobian of a
    learned denoiser is not symmetric: conjugate gradients may diverge with it, `minimal_residual` does not.

    Args:
      denoise: maps (noisy, t) to x0_hat; differentiable.
      schedule: the noise schedule.
      observe: H, maps a clean example to what is observed of it; linearised at x0_hat where it is not linear.
      values: what was observed.
      noise_variance: of each observation, or of all; positive.
      iterations: of `minimal_residual`, one product with the Jacobian each.

    Returns:
      the guided denoiser; as many backward passes a call as iterations.

    Source: Rozet, Andry, Lanusse, Louppe (2024), arXiv 2405.13712, section 4.2.
    """

    def guided(noisy: Array, t: Array) -> Array:
        alpha, sigma = schedule.alpha_sigma(jnp.asarray(t, noisy.dtype))
        x0_hat, pull_back = jax.vjp(lambda point: denoise(point, t), noisy)
        seen, along = jax.linearize(observe, x0_hat)
        across = jax.linear_transpose(along, x0_hat)

        def spread(weights: Array) -> Array:
            """V H^T of weights of the observations."""
            return (sigma**2 / alpha) * pull_back(across(weights)[0])[0]

        def innovation(weights: Array) -> tuple[Array, Array]:
            moved = spread(weights)
            return noise_variance * weights + along(moved), moved

        _, moved = minimal_residual(innovation, values - seen, iterations)
        return x0_hat + moved

    return guided
