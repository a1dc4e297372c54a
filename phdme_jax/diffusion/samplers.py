"""Samplers: from noise to an example through repeated calls of a denoiser.

Every sampler here is a table with one row for each call of the denoiser, worked off by one scan:

    denoised = denoise(state, time)
    state   <- keep state + pull denoised + recall previous_denoised + spread fresh_noise

which holds the denoiser once in the compiled program, whichever the sampler, and makes the number of function
evaluations the number of rows. In a row that corrects, the state takes a step of Langevin dynamics at its level:

    state <- state - sigma (length noise_hat + sqrt(2 length) fresh_noise)
    length = correct / max(mean(noise_hat^2), 1)

Published steps have no bound of one: where numbers are few, the mean is small by chance, and the step far too long.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from phdme_jax.diffusion.preconditioning import Denoise, noise_from_x0
from phdme_jax.diffusion.schedule import Schedule, sampling_times
from phdme_jax.numerics.arrays import require_steps

SAMPLERS = ("ddpm", "ddim", "heun", "dpm")


class SamplerTable(NamedTuple):
    """Coefficients of a sampler, one entry for each call of the denoiser; see the module's docstring."""

    time: Float[Array, " call"]
    keep: Float[Array, " call"]
    pull: Float[Array, " call"]
    recall: Float[Array, " call"]
    spread: Float[Array, " call"]
    correct: Float[Array, " call"]


def num_function_evaluations(sampler: str, num_steps: int, corrections: int = 0) -> int:
    """Calls of the denoiser for one sample: 2 num_steps - 1 for "heun", num_steps for the others, and the corrections.

    Raises:
      ValueError: unknown sampler, no step, corrections of "heun".

    >>> num_function_evaluations("heun", 20), num_function_evaluations("ddim", 20, corrections=2)
    (39, 58)
    """
    _check_sampler(sampler, corrections)
    require_steps(num_steps)
    return 2 * num_steps - 1 if sampler == "heun" else num_steps + corrections * (num_steps - 1)


def sampler_table(
    sampler: str,
    schedule: Schedule,
    num_steps: int,
    dtype: Any,
    eta: float = 0.0,
    spacing: str = "time",
    corrections: int = 0,
    correction_step: float = 0.5,
) -> SamplerTable:
    """Coefficients of a sampler.

    With r = sigma/alpha, from level (alpha, sigma) to the next (alpha', sigma'):

        ddim:  keep = sqrt(sigma'^2 - spread^2)/sigma,   pull = alpha' - keep alpha,
               spread = eta sigma'/sigma sqrt(sigma^2 - (alpha sigma'/alpha')^2)
        ddpm:  ddim with eta = 1, the ancestral step
        dpm:   ddim with eta = 0 and denoised + k (denoised - previous_denoised) for denoised, k the ratio of this step
               in log(r) to twice the one before; in the first step k = 0
        heun:  ddim with eta = 0 (Euler's step in r), then a call at the new level and the trapezoidal correction
               state + alpha' (r' - r)/(2 r') (previous_denoised - denoised)

    The last row makes the denoised example the state.

    Args:
      sampler: "ddpm", "ddim", "heun" or "dpm".
      schedule: the noise schedule.
      num_steps: number of noise levels, the first at t = 1, the last at t = 0.
      dtype: floating type of the coefficients.
      eta: share of the ancestral noise, 0 to 1, used by "ddim".
      spacing: how the levels are spaced; see `schedule.sampling_times`.
      corrections: Langevin steps at every level but the first, before the step to the next.
      correction_step: `correct` of these.

    Returns:
      table with `num_function_evaluations` rows.

    Raises:
      ValueError: unknown sampler or spacing, no step, eta outside [0, 1], corrections of "heun", or
        with a step that is not positive.

    Source: Ho et al. (2020), eq. 7; Song et al. (2021, DDIM), eq. 12 and 16; Karras et al. (2022), algorithm 1, here in
    terms of x0_hat alone (Euler's step moves straight towards x0_hat, so that both slopes can be measured from the
    predicted state); Lu et al. (2022, DPM-Solver++), algorithm 2; Rozet and Louppe (2023), arXiv 2306.10574, and their
    code (corrections).
    """
    _check_sampler(sampler, corrections)
    if corrections and not correction_step > 0.0:
        raise ValueError(f"expected correction_step > 0, got {correction_step}")
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"expected eta between 0 and 1, got {eta}")
    times = sampling_times(schedule, num_steps, dtype, spacing)
    alpha, sigma = schedule.alpha_sigma(times)
    here_alpha, here_sigma, next_alpha, next_sigma = alpha[:-1], sigma[:-1], alpha[1:], sigma[1:]
    share = 1.0 if sampler == "ddpm" else eta if sampler == "ddim" else 0.0
    shrink = here_alpha * next_sigma / (next_alpha * here_sigma)
    spread = share * next_sigma * jnp.sqrt(jnp.maximum(1.0 - shrink**2, 0.0))
    keep = next_sigma * jnp.sqrt(1.0 - share**2 + (share * shrink) ** 2) / here_sigma
    pull = next_alpha - keep * here_alpha
    recall = jnp.zeros_like(keep)
    if sampler == "dpm":
        width = 0.5 * jnp.diff(schedule.log_snr(times))
        lean = jnp.concatenate([jnp.zeros_like(width[:1]), 0.5 * width[1:] / width[:-1]])
        pull, recall = pull * (1.0 + lean), -pull * lean
    steps = SamplerTable(times[:-1], keep, pull, recall, spread, jnp.zeros_like(keep))
    if sampler == "heun":
        correction = 0.5 * next_alpha * (1.0 / shrink - 1.0)
        second = SamplerTable(times[1:], jnp.ones_like(keep), correction, -correction, recall, recall)
        steps = jax.tree.map(lambda euler, trapezoid: jnp.stack([euler, trapezoid], 1).reshape(-1), steps, second)
    one, zero = jnp.ones_like(times[:1]), jnp.zeros_like(times[:1])
    last = SamplerTable(times[-1:], zero, one, zero, zero, zero)
    table = jax.tree.map(lambda rows, end: jnp.concatenate([rows, end]), steps, last)
    if not corrections:
        return table
    each = 1 + corrections
    table = jax.tree.map(lambda column: jnp.repeat(column, each)[corrections:], table)
    is_step = jnp.arange(table.time.size) % each == 0
    return table._replace(correct=jnp.where(is_step, zero, correction_step * one))


def sample(
    denoise: Denoise,
    schedule: Schedule,
    noise: Float[Array, "*shape"],
    key: PRNGKeyArray,
    *,
    sampler: str = "ddim",
    num_steps: int = 50,
    eta: float = 0.0,
    spacing: str = "time",
    corrections: int = 0,
    correction_step: float = 0.5,
    clamp: Callable[[Array], Array] | None = None,
    push: Callable[[Array, Array], tuple[Array, Array]] | None = None,
) -> Float[Array, "*shape"]:
    """One example from noise.

    Args:
      denoise: maps (noisy, t) to x0_hat; over parameters and condition it is `preconditioning.bind`.
      schedule: the noise schedule.
      noise: standard normal noise; it gives the example its shape and type, and, unless fresh noise is added on the
        way, determines it.
      key: random key of the fresh noise of "ddpm", of "ddim" with eta > 0 and of corrections; else it is left alone.
      sampler: "ddpm", "ddim", "heun" or "dpm"; see `sampler_table`.
      num_steps: number of noise levels.
      eta: share of the ancestral noise, 0 to 1, used by "ddim".
      spacing: "time", "log_snr" or "karras"; with the first, the variance-preserving schedules take so wide a step at
        the start that "heun" and "dpm" need many: give those two "log_snr" or "karras".
      corrections: Langevin steps at every level but the first, one call each: they draw anew, within the law of the
        level as `denoise` says it, what the steps to it drew wrongly.
      correction_step: of these, `correct` of `SamplerTable`.
      clamp: applied to every x0_hat, to write known entries into it; the example returned obeys it exactly.
      push: (noisy, t) -> (x0_hat, what is subtracted from the next state, such as a step of guidance), called in
        place of `denoise`; nothing is subtracted after the last call, nor in a correction.

    Returns:
      example, of the shape and type of `noise`, in normalised units.

    Raises:
      ValueError: unknown sampler or spacing, no step, eta outside [0, 1], corrections of "heun", or
        with a step that is not positive.

    Source: see `sampler_table`.
    """
    table = sampler_table(sampler, schedule, num_steps, noise.dtype, eta, spacing, corrections, correction_step)
    stochastic = sampler == "ddpm" or (sampler == "ddim" and eta > 0.0)

    def call(carry: tuple[Array, Array], row: tuple[Array, SamplerTable]) -> tuple[tuple[Array, Array], None]:
        (state, previous), (index, now) = carry, row
        denoised, shift = (denoise(state, now.time), 0.0) if push is None else push(state, now.time)
        denoised = denoised if clamp is None else clamp(denoised)
        following = now.keep * state + now.pull * denoised + now.recall * previous - shift
        if stochastic or corrections:
            fresh = jax.random.normal(jax.random.fold_in(key, index), noise.shape, noise.dtype)
            following = following + now.spread * fresh
        if corrections:
            corrects = now.correct > 0.0
            step = jnp.where(corrects, now.correct, 1.0)  # roots of zero have no slope
            following = jnp.where(corrects, _langevin_step(schedule, state, denoised, fresh, now.time, step), following)
            denoised = jnp.where(corrects, previous, denoised)  # only steps from level to level are recalled
        return (following, denoised), None

    _, sigma = schedule.alpha_sigma(table.time[0])
    rows = (jnp.arange(table.time.size, dtype="uint32"), table)
    begin = (sigma * noise, jnp.zeros_like(noise))
    if table.time.size == 1:  # slopes by parameters are slow through a loop, see `convolution`, even of one call
        return call(begin, jax.tree.map(lambda leaf: leaf[0], rows))[0][1]
    (_, denoised), _ = jax.lax.scan(call, begin, rows)
    return denoised


def _langevin_step(
    schedule: Schedule, state: Array, denoised: Array, fresh: Array, time: Array, correct: Array
) -> Array:
    """What a row that corrects makes of a state, see the module's docstring."""
    alpha, sigma = schedule.alpha_sigma(time)
    noise_hat = noise_from_x0(state, denoised, alpha, sigma)
    length = correct / jnp.maximum(jnp.mean(noise_hat**2), 1.0)
    return state - sigma * (length * noise_hat + jnp.sqrt(2.0 * length) * fresh)


def sample_pushed(
    denoise: Denoise,
    schedule: Schedule,
    noise: Float[Array, "*shape"],
    potential: Callable[[Array, Array], Array],
    num_steps: int,
    spacing: str = "karras",
) -> Float[Array, "*shape"]:
    """One example by Heun's method, each step then pushed down a potential of what the denoiser answers.

    With y = noisy / alpha, r = sigma / alpha and x0_hat the answer to the second call of a step,

        y' <- heun(y) - grad_y potential(x0_hat(y), late),   late: after four fifths of the steps.

    Args:
      denoise: maps (noisy, t) to x0_hat; differentiable.
      schedule: the noise schedule.
      noise: standard normal noise.
      potential: (x0_hat, late) -> a number.
      num_steps: noise levels; two calls a step, the last one one.
      spacing: see `schedule.sampling_times`.
    Returns:
      the example.
    Raises:
      ValueError: no step.
    Source: Huang et al. (2024), arXiv 2406.17763, algorithm 1, for noise levels without a signal's amplitude.
    """
    require_steps(num_steps)
    times = sampling_times(schedule, num_steps, noise.dtype, spacing)
    alpha, sigma = schedule.alpha_sigma(times)
    ratio = sigma / alpha

    def step(point: Array, index: Array) -> tuple[Array, None]:
        here, there = ratio[index], ratio[index + 1]
        late = index > 0.8 * (num_steps - 1)

        def heun(start: Array) -> tuple[Array, Array]:
            slope = (start - denoise(alpha[index] * start, times[index])) / here
            ahead = start + (there - here) * slope
            answer = denoise(alpha[index + 1] * ahead, times[index + 1])
            end = start + 0.5 * (there - here) * (slope + (ahead - answer) / there)
            return potential(answer, late), end

        gradient, end = jax.grad(heun, has_aux=True)(point)
        return end - gradient, None

    point, _ = jax.lax.scan(step, ratio[0] * noise, jnp.arange(num_steps - 1))
    return denoise(alpha[-1] * point, times[-1])


def _check_sampler(sampler: str, corrections: int = 0) -> None:
    if sampler not in SAMPLERS:
        raise ValueError(f"expected a sampler among {SAMPLERS}, got {sampler!r}")
    if corrections < 0 or (corrections and sampler == "heun"):
        raise ValueError(f"expected corrections >= 0, and none of heun, got {corrections} of {sampler}")
