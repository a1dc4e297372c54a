"""CoCoGen: a diffusion model whose denoiser, and whose sample, are corrected down the residual."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Key

from phdme_jax.diffusion.preconditioning import Denoise
from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.methods.equations.encoding import decode, encode
from phdme_jax.methods.equations.network import Params, Prepared, Sampling, make_draw
from phdme_jax.methods.sampling.correction import correct
from phdme_jax.systems.equations.base import Equations, stacked_residual


def correct_solution(
    equations: Equations, fields: Array, condition: Array, num_steps: int, rule: str = "exact"
) -> Array:
    """The fields (*grid, field), physical units, with their first channels, the solution, corrected."""
    count = equations.num_solution
    rest = fields[..., count:]

    def residual(solution: Array) -> Array:
        return stacked_residual(equations, jnp.concatenate([solution, rest], axis=-1), condition)

    return jnp.concatenate([correct(residual, fields[..., :count], num_steps, rule), rest], axis=-1)


def fit_corrected(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """The teacher with one step of correction in each of its last levels and more at the end; nothing is trained.

    Args:
      task: its problem is `Equations`.
      options: groups data and sampling.
      host: unused.
      teacher: a diffusion model of `methods.equations`.
      key: unused.
    Returns:
      the teacher with another denoiser and another draw.
    Source: Jacobsen, Zhuang, Duraisamy (2025), CoCoGen, SIAM J. Sci. Comput. 47 (C399), section 3.
    """
    del host, key
    assert teacher is not None and teacher.model.denoise is not None and teacher.model.sample is not None
    equations, sampling, kinds = task.problem, Sampling(**options["sampling"]), tuple(options["data"]["kinds"])
    (during, after), rule, plain = sampling.corrections, sampling.correction_rule, teacher.model.denoise
    begin = (during - 1) / max(sampling.num_steps - 1, 1)

    def denoise(params: Params, prepared: Prepared) -> Denoise:
        uncorrected, (condition, _, encoding) = plain(params, prepared), prepared.given

        def answer(noisy: Array, t: Array) -> Array:
            x0_hat = uncorrected(noisy, t)
            fields = correct_solution(equations, decode(encoding, kinds, x0_hat), condition, 1, rule)
            return jnp.where(t <= begin, encode(encoding, kinds, fields), x0_hat)

        return answer

    draw_once = make_draw(kinds, denoise, teacher.model.sample)

    def draw(params: Params, prepared: Prepared, latent: Array, key: Array) -> Array:
        fields = draw_once(params, prepared, latent, key)
        return correct_solution(equations, fields, prepared.given.condition, after, rule)

    return teacher._replace(model=dataclasses.replace(teacher.model, denoise=denoise, draw=draw))
