"""Noise schedules: how much signal and how much noise a noisy example holds at diffusion time t.

    noisy(t) = alpha(t) x0 + sigma(t) noise,    t in [0, 1],    noise ~ N(0, I)

Time 0 is (almost) clean, time 1 is (almost) pure noise. A schedule is defined by its log signal-to-noise ratio
log_snr(t) = log(alpha^2 / sigma^2), strictly decreasing, and by its family: variance preserving (alpha^2 + sigma^2 = 1)
or variance exploding (alpha = 1). The ratio sigma / alpha = exp(-log_snr / 2) is the noise level on which
Karras et al. (2022) build everything; it makes both families one.
"""

import abc
import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from phdme_jax.numerics.arrays import require_steps

SPACINGS = ("time", "log_snr", "karras")
DISTRIBUTIONS = ("uniform", "log_normal")


@dataclasses.dataclass(frozen=True)
class Schedule(abc.ABC):
    """What every schedule offers; static, hashable, without arrays."""

    variance_preserving: ClassVar[bool] = True

    @abc.abstractmethod
    def log_snr(self, t: Float[Array, "*level"]) -> Float[Array, "*level"]:
        """Log signal-to-noise ratio, log(alpha^2 / sigma^2), at diffusion time t."""

    @abc.abstractmethod
    def time_from_log_snr(self, log_snr: Float[Array, "*level"]) -> Float[Array, "*level"]:
        """Diffusion time with that log signal-to-noise ratio; what lies outside the range goes to its ends."""

    def alpha_sigma(self, t: Float[Array, "*level"]) -> tuple[Float[Array, "*level"], Float[Array, "*level"]]:
        """Amplitudes of the signal and of the noise at diffusion time t."""
        log_snr = self.log_snr(t)
        if self.variance_preserving:
            return jnp.sqrt(jax.nn.sigmoid(log_snr)), jnp.sqrt(jax.nn.sigmoid(-log_snr))
        return jnp.ones_like(log_snr), jnp.exp(-0.5 * log_snr)

    def noise_ratio(self, t: Float[Array, "*level"]) -> Float[Array, "*level"]:
        """Noise level sigma / alpha at diffusion time t, in units of the data."""
        return jnp.exp(-0.5 * self.log_snr(t))

    def time_from_noise_ratio(self, ratio: Float[Array, "*level"]) -> Float[Array, "*level"]:
        """Diffusion time with that noise level sigma / alpha."""
        return self.time_from_log_snr(-2.0 * jnp.log(ratio))


@dataclasses.dataclass(frozen=True)
class CosineSchedule(Schedule):
    """Variance-preserving cosine schedule, truncated to a range of the log signal-to-noise ratio.

        alpha = cos(angle), sigma = sin(angle), angle = first + t (last - first)

    The two angles are those at which the ratio reaches its limits, so that, unlike with a clipped ratio, it stays
    strictly decreasing and invertible.

    Attributes:
      log_snr_min: log signal-to-noise ratio at t = 1.
      log_snr_max: log signal-to-noise ratio at t = 0.

    Source: Nichol and Dhariwal (2021), eq. 17; truncation as in Hoogeboom et al. (2023), simple diffusion, appendix B.
    """

    log_snr_min: float = -15.0
    log_snr_max: float = 15.0

    def __post_init__(self) -> None:
        _check_increasing("log_snr_min", self.log_snr_min, "log_snr_max", self.log_snr_max)

    def _angles(self) -> tuple[float, float, float]:
        """First angle, last angle counted back from a right angle, and the angle between the two."""
        first = math.atan(math.exp(-0.5 * self.log_snr_max))
        last = math.atan(math.exp(0.5 * self.log_snr_min))
        return first, last, 0.5 * math.pi - last - first

    def log_snr(self, t: Float[Array, "*level"]) -> Float[Array, "*level"]:
        """Log signal-to-noise ratio at diffusion time t."""
        first, last, width = self._angles()
        # The cosine as the sine of the complement: exact near the right angle, also in float32.
        return 2.0 * jnp.log(jnp.sin(last + (1.0 - t) * width) / jnp.sin(first + t * width))

    def time_from_log_snr(self, log_snr: Float[Array, "*level"]) -> Float[Array, "*level"]:
        """Diffusion time with that log signal-to-noise ratio."""
        first, _, width = self._angles()
        return jnp.clip((jnp.arctan(jnp.exp(-0.5 * log_snr)) - first) / width, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class SteppedCosineSchedule(Schedule):
    """The cosine schedule of a chain of noise levels, continuous between them.

        alpha^2 = cos(angle(u))^2 / cos(angle(0))^2,   angle(u) = pi/2 (u + offset)/(1 + offset)
        u = (1 + t (T - 1))/T

    Time 0 is the first noisy level and time 1 the last; the T levels are evenly spaced between. The share of the noise
    that the last step adds is clipped, as published.

    Attributes:
      num_levels: T.
      offset: keeps the first level from being too clean.
      largest_step: largest share beta of new noise in a step.

    Source: Nichol and Dhariwal (2021), eq. 17.
    """

    num_levels: int = 100
    offset: float = 0.008
    largest_step: float = 0.999

    def __post_init__(self) -> None:
        if self.num_levels < 3 or self.offset <= 0.0 or not 0.0 < self.largest_step < 1.0:
            raise ValueError(f"expected three levels, a positive offset and a step below one, got {self}")

    def _angle(self, u: Any) -> Any:
        return 0.5 * math.pi * (u + self.offset) / (1.0 + self.offset)

    def _last_step(self) -> tuple[float, float, float]:
        """The level before the last in units of u, and log alpha^2 there and at the last one, whose step is clipped."""
        before = 1.0 - 1.0 / self.num_levels
        there = 2.0 * math.log(math.cos(self._angle(before)) / math.cos(self._angle(0.0)))
        return before, there, there + math.log1p(-self.largest_step)

    def log_snr(self, t: Float[Array, "*level"]) -> Float[Array, "*level"]:
        """Log signal-to-noise ratio at diffusion time t."""
        before, there, last = self._last_step()
        u = (1.0 + t * (self.num_levels - 1)) / self.num_levels
        inside = 2.0 * jnp.log(jnp.cos(self._angle(jnp.minimum(u, before))) / math.cos(self._angle(0.0)))
        # over the clipped step the logarithm is a straight line
        square = jnp.where(u > before, there + (last - there) * (u - before) * self.num_levels, inside)
        return square - jnp.log(-jnp.expm1(square))

    def time_from_log_snr(self, log_snr: Float[Array, "*level"]) -> Float[Array, "*level"]:
        """Diffusion time with that log signal-to-noise ratio."""
        before, there, last = self._last_step()
        square = -jax.nn.softplus(-log_snr)
        angle = jnp.arccos(jnp.clip(jnp.exp(0.5 * square) * math.cos(self._angle(0.0)), 0.0, 1.0))
        u = 2.0 * angle / math.pi * (1.0 + self.offset) - self.offset
        u = jnp.where(square < there, before + (square - there) / (last - there) / self.num_levels, u)
        return jnp.clip((u * self.num_levels - 1.0) / (self.num_levels - 1), 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class LinearSchedule(Schedule):
    """Variance-preserving schedule with a linearly growing rate.

        alpha^2 = exp(-B(s)),   B(s) = beta_min s + (beta_max - beta_min) s^2 / 2,   s = start + t (1 - start)

    Attributes:
      beta_min: rate at s = 0.
      beta_max: rate at s = 1.
      log_snr_max: log signal-to-noise ratio at t = 0, which fixes `start`.

    Source: Song et al. (2021), eq. 32-33; it starts where the ratio reaches log_snr_max instead of at s = 1e-5.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    log_snr_max: float = 12.0

    def __post_init__(self) -> None:
        _check_increasing("beta_min", self.beta_min, "beta_max", self.beta_max)
        _check_increasing("0", 0.0, "beta_min", self.beta_min)
        if math.log1p(math.exp(-self.log_snr_max)) >= 0.5 * (self.beta_min + self.beta_max):
            raise ValueError(
                f"expected log_snr_max above the ratio reached at t = 1, got {self.log_snr_max}; try a larger one"
            )

    def _start(self) -> float:
        integral = math.log1p(math.exp(-self.log_snr_max))
        slope = self.beta_max - self.beta_min
        return 2.0 * integral / (self.beta_min + math.sqrt(self.beta_min**2 + 2.0 * slope * integral))

    def log_snr(self, t: Float[Array, "*level"]) -> Float[Array, "*level"]:
        """Log signal-to-noise ratio at diffusion time t."""
        start = self._start()
        s = start + t * (1.0 - start)
        integral = s * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * s)
        return -integral - jnp.log(-jnp.expm1(-integral))

    def time_from_log_snr(self, log_snr: Float[Array, "*level"]) -> Float[Array, "*level"]:
        """Diffusion time with that log signal-to-noise ratio."""
        start = self._start()
        integral = jnp.minimum(jax.nn.softplus(-log_snr), 0.5 * (self.beta_min + self.beta_max))  # at the end, s = 1
        slope = self.beta_max - self.beta_min
        # The root of the quadratic written without cancellation.
        s = 2.0 * integral / (self.beta_min + jnp.sqrt(self.beta_min**2 + 2.0 * slope * integral))
        return jnp.clip((s - start) / (1.0 - start), 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class EdmSchedule(Schedule):
    """Variance-exploding schedule with noise levels spaced by a power.

        alpha = 1,   sigma(t)^(1/rho) = sigma_min^(1/rho) + t (sigma_max^(1/rho) - sigma_min^(1/rho))

    Attributes:
      sigma_min: noise level at t = 0, in units of the data.
      sigma_max: noise level at t = 1, in units of the data.
      rho: exponent; larger spends more of the time at small noise.

    Source: Karras et al. (2022), eq. 5.
    """

    variance_preserving: ClassVar[bool] = False
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        _check_increasing("0", 0.0, "sigma_min", self.sigma_min)
        _check_increasing("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)

    def log_snr(self, t: Float[Array, "*level"]) -> Float[Array, "*level"]:
        """Log signal-to-noise ratio at diffusion time t."""
        low, high = self.sigma_min ** (1.0 / self.rho), self.sigma_max ** (1.0 / self.rho)
        return -2.0 * self.rho * jnp.log(low + t * (high - low))

    def time_from_log_snr(self, log_snr: Float[Array, "*level"]) -> Float[Array, "*level"]:
        """Diffusion time with that log signal-to-noise ratio."""
        low, high = self.sigma_min ** (1.0 / self.rho), self.sigma_max ** (1.0 / self.rho)
        return jnp.clip((jnp.exp(-0.5 * log_snr / self.rho) - low) / (high - low), 0.0, 1.0)


SCHEDULES: dict[str, type[Schedule]] = {
    "cosine": CosineSchedule,
    "stepped_cosine": SteppedCosineSchedule,
    "linear": LinearSchedule,
    "edm": EdmSchedule,
}


def sampling_times(
    schedule: Schedule, num_steps: int, dtype: Any, spacing: str = "time", rho: float = 7.0
) -> Float[Array, " step"]:
    """Decreasing diffusion times from 1 to 0 at which a sampler calls the denoiser.

    The last call, at t = 0, is followed by the jump to the clean example and not by another noise level.

    Args:
      schedule: the noise schedule.
      num_steps: number of times, at least 1.
      dtype: floating type of the times, that of the noise to be denoised.
      spacing: "time" (equidistant in t), "log_snr" (in the log ratio), "karras" (in (sigma/alpha)^(1/rho)).
      rho: exponent of the "karras" spacing.

    Returns:
      times, shape (num_steps,).

    Raises:
      ValueError: fewer than one step, or an unknown spacing.
    """
    require_steps(num_steps)
    if spacing not in SPACINGS:
        raise ValueError(f"expected a spacing among {SPACINGS}, got {spacing!r}")
    times = jnp.linspace(1.0, 0.0, num_steps, dtype=dtype)
    ends = jnp.linspace(1.0, 0.0, 2, dtype=dtype)
    if spacing == "log_snr":
        first, last = schedule.log_snr(ends)
        return schedule.time_from_log_snr(last + times * (first - last))
    if spacing == "karras":
        first, last = schedule.noise_ratio(ends) ** (1.0 / rho)
        return schedule.time_from_noise_ratio((last + times * (first - last)) ** rho)
    return times


def time_from_uniform(
    schedule: Schedule,
    uniform: Float[Array, "*level"],
    distribution: str = "uniform",
    log_mean: float = -1.2,
    log_std: float = 1.2,
) -> Float[Array, "*level"]:
    """Training time from a number that is uniform on [0, 1): the quantile function of the distribution of noise levels.

        uniform: t = u        log_normal: log(sigma / alpha) = log_mean + log_std Phi^-1(u)

    Args:
      schedule: the noise schedule.
      uniform: numbers in [0, 1); stratified ones give stratified times.
      distribution: "uniform" or "log_normal".
      log_mean: mean of log(sigma / alpha), used by "log_normal".
      log_std: standard deviation of log(sigma / alpha), used by "log_normal".

    Returns:
      diffusion times in [0, 1], of the shape and type of `uniform`.

    Raises:
      ValueError: unknown distribution.

    Source: Karras et al. (2022), table 1 (log-normal noise levels for data of standard deviation 0.5).
    """
    if distribution not in DISTRIBUTIONS:
        raise ValueError(f"expected a distribution among {DISTRIBUTIONS}, got {distribution!r}")
    if distribution == "uniform":
        return uniform
    return schedule.time_from_noise_ratio(jnp.exp(log_mean + log_std * jax.scipy.special.ndtri(uniform)))


def stratified_uniform(count: int, dtype: Any, key: PRNGKeyArray) -> Float[Array, " example"]:
    """Numbers on [0, 1), one in each of `count` equal strata, each by itself uniform on its stratum.

    A batch that takes its training times from these sees every noise level, which lowers the variance of its loss.

    Args:
      count: number of strata, the batch size.
      dtype: floating type of the numbers.
      key: random key.

    Returns:
      numbers, shape (count,), in increasing order.

    Source: Kingma et al. (2021), Variational diffusion models, appendix I.1 (there one shift is shared by all strata).
    """
    return (jnp.arange(count, dtype=dtype) + jax.random.uniform(key, (count,), dtype)) / count


def _check_increasing(low_name: str, low: float, high_name: str, high: float) -> None:
    if not low < high:
        raise ValueError(f"expected {low_name} < {high_name}, got {low} and {high}")
