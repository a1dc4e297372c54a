"""Training diffusion models with the residual of known equations: physics-informed diffusion models.

    L = w_t mean|x0_hat - x0|^2 + c_r mean r(x*)^2 / (2 Sigma_t) + c_i mean max(i(x*), 0)^2 / (2 Sigma_t) + c_o J(x*),
    w_t = min(SNR_t, gamma)

The residual is taken for an observation of zero, made with the variance Sigma_t of the reverse step. The point x* is
the denoiser's mean, or a sample that a deterministic sampler reaches from the noisy example. Beyond the published
losses, Sigma_t may be 1 / w_t, with w_t before J too: then the constraints weigh as much at every level as the data do.
Source: Bastek, Sun, Kochmann (2024), arXiv 2403.14404, equations 12 to 17.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from phdme_jax.diffusion.loss import denoising_loss, loss_weight
from phdme_jax.diffusion.preconditioning import Denoise, noise_from_x0
from phdme_jax.diffusion.schedule import Schedule
from phdme_jax.methods.equations.constraints import Constraints

ESTIMATIONS = ("mean", "sample")
VARIANCES = ("step", "denoising")


@dataclasses.dataclass(frozen=True)
class Informed:
    """How constraints enter the loss: `Informed(estimation=..., **options["informed"])`.

    Attributes:
      estimation: where the constraints are asked for: at the denoiser's "mean", or at a "sample".
      mean_weight: c_r at the mean.
      sample_weight: c_r at a sample.
      inequality_weight: c_i.
      objective_weight: c_o.
      num_levels: noise levels of the chain, evenly spaced in time, of whose steps Sigma_t is the variance.
      num_between: levels that the sample passes between the noisy example and the last one.
      reuses_noisy_input: hand the denoiser the noisy example at every level, as the published code does, in place of
        the sample on its way.
      least_log_likelihood: floor of -r^2 / (2 Sigma_t), below which there is no slope, as on the published circle; None
        for none.
      variance: Sigma_t, of "step" (the published one, that of the reverse step), or of "denoising": 1 / w_t. The former
        leaves the highest levels, where the data weigh next to nothing and the denoiser's mean is far from any example,
        to the constraints; the latter does not.
      gamma: where the weight of the data is cut off.
      level_share: share of the examples whose noise level is drawn in proportion to 1 / Sigma_t in place of evenly. The
        loss stays what it is on average, each example divided by how often its level is drawn; but the two lowest of a
        hundred levels, which carry two fifths of the weight of the residual, are not left to two examples of a hundred.
        Without a residual levels are drawn evenly.
      equality: whether the inequality is asked to vanish instead, as the published volume is.
      detached: see `constraints.make_constraints`.
      solves_objective: see there.
    """

    estimation: str = "mean"
    mean_weight: float = 1e-3
    sample_weight: float = 1e-3
    inequality_weight: float = 0.0
    objective_weight: float = 0.0
    num_levels: int = 100
    num_between: int = 0
    reuses_noisy_input: bool = False
    least_log_likelihood: float | None = None
    variance: str = "step"
    gamma: float = 5.0
    level_share: float = 0.0
    equality: bool = False
    detached: bool = False
    solves_objective: bool = False

    def __post_init__(self) -> None:
        if self.estimation not in ESTIMATIONS:
            raise ValueError(f"expected an estimation among {ESTIMATIONS}, got {self.estimation!r}")
        if self.variance not in VARIANCES:
            raise ValueError(f"expected a variance among {VARIANCES}, got {self.variance!r}")
        if not 0.0 <= self.level_share < 1.0:
            raise ValueError(f"expected a level_share from 0 to below 1, got {self.level_share}")
        if self.gamma <= 0.0:
            raise ValueError(f"expected a gamma above 0, got {self.gamma}")
        if self.num_levels < 3 or self.num_between < 0:
            raise ValueError(
                f"expected three levels or more and num_between >= 0, got {self.num_levels} and {self.num_between}"
            )

    @property
    def residual_weight(self) -> float:
        """c_r where the constraints are asked for."""
        return self.mean_weight if self.estimation == "mean" else self.sample_weight

    def scaled(self, factor: float) -> "Informed":
        """The same with all weights of constraints times a factor."""
        names = ("mean_weight", "sample_weight", "inequality_weight", "objective_weight")
        return dataclasses.replace(self, **{name: factor * getattr(self, name) for name in names})


def posterior_variance(schedule: Schedule, level: Float[Array, ""], num_levels: int) -> Float[Array, ""]:
    """Variance Sigma of the reverse step from one of evenly spaced noise levels to the one before.

        Sigma = beta sigma'^2 / sigma^2,   beta = 1 - (alpha / alpha')^2

    The first level, which has none before it, takes the value of the second.

    Args:
      schedule: a variance-preserving schedule.
      level: number of the level, from 0 (almost clean) to num_levels - 1.
      num_levels: their number.
    Returns:
      the variance.
    Source: Ho et al. (2020), eq. 7.
    """
    level = jnp.maximum(level, 1.0)
    alpha, sigma = schedule.alpha_sigma(level / (num_levels - 1))
    alpha_before, sigma_before = schedule.alpha_sigma((level - 1.0) / (num_levels - 1))
    return (1.0 - (alpha / alpha_before) ** 2) * (sigma_before / sigma) ** 2


def virtual_variance(options: Informed, schedule: Schedule, level: Float[Array, ""]) -> Float[Array, ""]:
    """Variance Sigma_t of the virtual observations at a level, see `Informed`."""
    if options.variance == "step":
        return posterior_variance(schedule, level, options.num_levels)
    return 1.0 / loss_weight(schedule, level / (options.num_levels - 1), gamma=options.gamma)


def level_frequencies(options: Informed, schedule: Schedule) -> Float[Array, " level"]:
    """How often each level is drawn: (1 - share) / levels + share Sigma_t^-1 / sum Sigma^-1."""
    levels = jnp.arange(options.num_levels, dtype=float)
    precision = 1.0 / jax.vmap(lambda level: virtual_variance(options, schedule, level))(levels)
    even = (1.0 - options.level_share) / options.num_levels
    return even + options.level_share * precision / jnp.sum(precision)


def sample_estimate(
    denoise: Denoise,
    schedule: Schedule,
    noisy: Float[Array, "*shape"],
    first: Float[Array, "*shape"],
    level: Float[Array, ""],
    options: Informed,
) -> Float[Array, "*shape"]:
    """Clean example that the deterministic sampler reaches from a noisy one.

    Steps go to whole levels that divide the way to level 0 evenly, and from there to the clean example.

    Args:
      denoise: the denoiser.
      schedule: noise schedule.
      noisy: noisy example at the level.
      first: the denoiser's answer to it.
      level: number of its level.
      options: number of levels, and whether the denoiser gets the noisy example again.
    Returns:
      the clean example of the last call.
    Source: Song et al. (2021), DDIM, eq. 12 with eta = 0.
    """
    count = options.num_between + 1
    state, denoised, here = noisy, first, level
    for index in range(1, count + 1):
        following = jnp.floor(level * (count - index) / count)
        alpha, sigma = schedule.alpha_sigma(here / (options.num_levels - 1))
        time = following / (options.num_levels - 1)
        next_alpha, next_sigma = schedule.alpha_sigma(time)
        moved = next_alpha * denoised + next_sigma * noise_from_x0(state, denoised, alpha, sigma)
        state = jnp.where(following < here, moved, state)
        denoised = denoise(noisy if options.reuses_noisy_input else state, time)
        here = following
    return denoised


def constraint_penalty(
    options: Informed, constraints: Constraints, point: Float[Array, "*shape"], variance: Float[Array, ""]
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Terms of the constraints at a clean example, and their sizes before weighting.

    Args:
      options: weights.
      constraints: what is asked.
      point: clean example x*, normalised units.
      variance: Sigma of the virtual observations.
    Returns:
      the penalty, and mean |r|, mean |i| and J as metrics.
    """
    total, sizes = jnp.zeros((), point.dtype), {}

    def surprise(values: Array) -> Array:
        square = values**2 / (2.0 * variance)
        if options.least_log_likelihood is not None:
            square = jnp.minimum(square, -options.least_log_likelihood)
        return jnp.mean(square)

    if constraints.residual is not None:
        residual = constraints.residual(point)
        sizes["residual"] = jnp.mean(jnp.abs(residual))
        total = total + options.residual_weight * surprise(residual)
    if constraints.inequality is not None:
        excess = constraints.inequality(point)
        excess = excess if options.equality else jnp.maximum(excess, 0.0)
        sizes["inequality"] = jnp.mean(jnp.abs(excess))
        total = total + options.inequality_weight * surprise(excess)
    if constraints.objective is not None:
        sizes["objective"] = jnp.mean(constraints.objective(point))
        weight = 1.0 if options.variance == "step" else 1.0 / variance
        total = total + options.objective_weight * weight * sizes["objective"]
    return total, sizes


def informed_loss(
    denoise: Denoise,
    schedule: Schedule,
    example: Float[Array, "*shape"],
    constraints: Constraints,
    options: Informed,
    key: PRNGKeyArray,
    level: Float[Array, ""] | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Loss of one example.

    Args:
      denoise: maps (noisy, t) to x0_hat.
      schedule: noise schedule, variance preserving.
      example: clean example, normalised units.
      constraints: what is asked of it.
      options: how the constraints enter.
      key: random key.
      level: number of its noise level; None draws it.
    Returns:
      the loss, and metrics: denoising, penalty and the sizes of the constraints at x*.
    """
    level_key, noise_key = jax.random.split(key)
    weight: Array | float = 1.0
    if level is None:
        level = jax.random.randint(level_key, (), 0, options.num_levels)
        if options.level_share > 0.0 and constraints.residual is not None:
            often = level_frequencies(options, schedule).astype(example.dtype)
            level = jax.random.categorical(level_key, jnp.log(often))
            weight = 1.0 / (options.num_levels * often[level])
    level = jnp.asarray(level, example.dtype)
    time = level / (options.num_levels - 1)
    terms = denoising_loss(denoise, schedule, example, noise_key, time=time, gamma=options.gamma)
    point = terms.x0_hat
    if options.estimation == "sample":
        point = sample_estimate(denoise, schedule, terms.noisy, terms.x0_hat, level, options)
    variance = virtual_variance(options, schedule, level)
    penalty, sizes = constraint_penalty(options, constraints, point, variance)
    return weight * (terms.loss + penalty), {"denoising": terms.loss, "penalty": penalty, **sizes}
