"""Diffusion models of fields that obey known equations: denoising alone, and with constraints in the loss (PIDM).

The fit functions are entries of the table of methods: (task, options, host, teacher, key) -> Fitted. Of the options
they read the groups data, network, stages, informed, training and sampling.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Key, PyTree

from phdme_jax.diffusion.loss import DenoisingTerms, denoising_loss
from phdme_jax.diffusion.preconditioning import Denoise, precondition
from phdme_jax.diffusion.samplers import num_function_evaluations, sample
from phdme_jax.diffusion.schedule import EdmSchedule, Schedule, SteppedCosineSchedule, time_from_uniform
from phdme_jax.methods.base import Fitted, Host, Model, Options, Task
from phdme_jax.methods.equations import network as shared
from phdme_jax.methods.equations.constraints import Constraints, make_constraints
from phdme_jax.methods.equations.informed import Informed, informed_loss
from phdme_jax.methods.equations.network import EncodedExample, EquationNetwork, Given, Prepared, Recipe

NOISES = ("chain", "edm")
EDM_MEAN, EDM_STD = -0.5, 1.2  # of the logarithm of noise over example, -1.2 + log 2 for data of unit deviation


def make_schedule(informed: Informed) -> SteppedCosineSchedule:
    """Noise schedule of the chain of levels that the loss draws from."""
    return SteppedCosineSchedule(num_levels=informed.num_levels)


def teacher_schedule(options: Options) -> Schedule:
    """Noise schedule of a diffusion model without physics, and of what guides or corrects it.

    Args:
      options: groups `training`, whose `noise` is "chain", see `make_schedule`, or "edm", and `informed`.
    Returns:
      the schedule. That of "edm" reaches twice the published noise at both ends: its data have half our deviation.
    Raises:
      ValueError: another word.
    Source: Karras et al. (2022), arXiv 2206.00364, table 1.
    """
    noise = options["training"].get("noise", "chain")
    if noise not in NOISES:
        raise ValueError(f"expected training.noise among {NOISES}, got {noise!r}")
    if noise == "edm":
        return EdmSchedule(sigma_min=0.004, sigma_max=160.0)
    return make_schedule(Informed(**options["informed"]))


def make_denoise(
    net: EquationNetwork, schedule: Schedule, predicts: str, hides_solution: bool = False
) -> shared.FieldOf:
    """Denoiser of one example under its condition.

    Where the solution is hidden, the network sees zeros for the noisy one. What it answers for the solution is then its
    mean given the other noisy fields, at the lowest level all but the solution itself: the mean of something certain
    has no Jensen gap, and no noise is left in it for a residual to find.

    Args:
      net: the network.
      schedule: of the noise.
      predicts: what the network predicts, see `precondition`.
      hides_solution: whether it is not shown the noisy solution.
    Returns:
      (parameters of the network, prepared) -> denoiser.
    Raises:
      ValueError: a solution that cannot be hidden.
    """
    if hides_solution and "map" not in net.equations.offers:
        raise ValueError(f"expected equations with fields beside the solution, got {net.equations.name}")
    if hides_solution and predicts != "x0":
        raise ValueError(f"expected predicts='x0', the noise of the solution being hidden, got {predicts!r}")
    denoiser, count = precondition(net.network, schedule, predicts), net.equations.num_solution

    def denoise_of(network: PyTree, prepared: Prepared) -> Denoise:
        def denoise(noisy: Array, t: Array) -> Array:
            seen = noisy.at[..., :count].set(0.0) if hides_solution else noisy
            return denoiser.apply(network, seen, t, prepared.features)

        return denoise

    return denoise_of


def make_loss(
    net: EquationNetwork,
    denoise_of: shared.FieldOf,
    informed: Informed,
    asked: Callable[[Given], Constraints],
) -> shared.Loss:
    """`informed_loss` of one example.

    Args:
      net: the network.
      denoise_of: see `make_denoise`.
      informed: how constraints enter.
      asked: what is given -> constraints.
    Returns:
      (parameters of the network, example, key) -> (loss, metrics).
    """
    prepare, schedule = shared.make_prepare(net), make_schedule(informed)

    def loss(network: PyTree, example: EncodedExample, key: Array) -> tuple[Array, dict[str, Array]]:
        denoise = denoise_of(network, prepare(network, example.given))
        loss_key = jax.random.split(key)[0]  # the other half is for what a network is told at random
        return informed_loss(denoise, schedule, example.fields, asked(example.given), informed, loss_key)

    return loss


Denoising = Callable[[Denoise, Array, Array], tuple[Array, dict[str, Array]]]
"""(denoiser, clean example in normalised units, key) -> (loss, metrics)."""


def make_denoising(options: Options) -> Denoising:
    """Loss of a diffusion model without physics, at the levels and by the weights that `training.noise` names.

        chain: see `informed_loss`
        edm:   log r = EDM_MEAN + EDM_STD z,   loss = (1 / r^2 + 1) mean |x0_hat - x0|^2,   r noise over example

    By the second an untrained network errs as much at every level.

    Args:
      options: groups `training` and `informed`.
    Returns:
      the loss.
    Source: Karras et al. (2022), arXiv 2206.00364, table 1, for data of unit deviation.
    """
    schedule = teacher_schedule(options)
    if isinstance(schedule, SteppedCosineSchedule):
        informed = Informed(**options["informed"])
        return lambda denoise, fields, key: informed_loss(denoise, schedule, fields, Constraints(), informed, key)

    def denoising(denoise: Denoise, fields: Array, key: Array) -> tuple[Array, dict[str, Array]]:
        terms = edm_terms(denoise, schedule, fields, key)
        return terms.loss, {"denoising": terms.loss}

    return denoising


def edm_terms(denoise: Denoise, schedule: Schedule, fields: Array, key: Array) -> DenoisingTerms:
    """Loss of one example at levels and by weights "edm", see `make_denoising`, with the mean and the time it is of."""
    level_key, noise_key = jax.random.split(key)
    uniform = jax.random.uniform(level_key, (), fields.dtype)
    time = time_from_uniform(schedule, uniform, "log_normal", EDM_MEAN, EDM_STD)
    return denoising_loss(denoise, schedule, fields, noise_key, time=time, weighting="edm")


def make_plain_loss(net: EquationNetwork, denoise_of: shared.FieldOf, denoising: Denoising) -> shared.Loss:
    """The same of a network: (parameters of the network, example, key) -> (loss, metrics)."""
    prepare = shared.make_prepare(net)

    def loss(network: PyTree, example: EncodedExample, key: Array) -> tuple[Array, dict[str, Array]]:
        denoise = denoise_of(network, prepare(network, example.given))
        return denoising(denoise, example.fields, jax.random.split(key)[0])

    return loss


def make_asked(net: EquationNetwork, informed: Informed) -> Callable[[Given], Constraints]:
    """What is given -> constraints; none where nothing weighs."""
    if not any((informed.residual_weight, informed.inequality_weight, informed.objective_weight)):
        return lambda given: Constraints()
    return lambda given: make_constraints(
        net.equations, net.kinds, given.encoding, given.condition, informed.detached, informed.solves_objective
    )


def sample_as(
    sampling: shared.Sampling, denoise: Denoise, schedule: Schedule, latent: Array, key: Array, **more: Any
) -> Array:
    """What `samplers.sample` makes of noise, in the steps that the options ask for; `more` are further arguments."""
    name, steps, spacing = sampling.sampler, sampling.num_steps, sampling.spacing
    return sample(denoise, schedule, latent, key, sampler=name, num_steps=steps, spacing=spacing, **more)


def make_model(
    net: EquationNetwork,
    schedule: Schedule,
    options: Options,
    denoise_of: shared.FieldOf,
    prepare: shared.Prepare | None = None,
    calls_a_step: int = 1,
) -> Model:
    """A diffusion model that samples as its options say.

    Args:
      net: the network.
      schedule: of the noise.
      options: group `sampling`.
      denoise_of: see `make_denoise`.
      prepare: `network.make_prepare` where None.
      calls_a_step: of the network.
    Returns:
      the model.
    """
    sampling = shared.Sampling(**options["sampling"])

    def draw_normalised(denoise: Denoise, latent: Array, key: Array) -> Array:
        return sample_as(sampling, denoise, schedule, latent, key)

    calls = calls_a_step * num_function_evaluations(sampling.sampler, sampling.num_steps)
    return shared.make_model(net, prepare or shared.make_prepare(net), denoise_of, draw_normalised, calls)


def fit_diffusion(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """Denoising alone, see `make_denoising`."""
    del teacher
    schedule, denoising = teacher_schedule(options), make_denoising(options)

    def recipe(net: EquationNetwork) -> Recipe:
        denoise_of = make_denoise(net, schedule, options["training"]["predicts"])
        loss = make_plain_loss(net, denoise_of, denoising)
        return Recipe("diffusion", lambda number: loss, make_model(net, schedule, options, denoise_of))

    return shared.fit_recipe(recipe, task, options, host, key)


def fit_informed(
    task: Task,
    options: Options,
    host: Host,
    teacher: Fitted | None,
    key: Key[Array, ""],
    estimation: str = "mean",
    hides_solution: bool = False,
) -> Fitted:
    """Denoising with the constraints of the equations in the loss; the number of a stage is a factor of their weights.

    Args:
      task: its problem is `Equations`.
      options: groups.
      host: where it trains.
      teacher: none.
      key: of the method and seed.
      estimation: where the constraints are asked for, see `Informed`.
      hides_solution: see `make_denoise`; the residual is detached then.
    Returns:
      the fitted method.
    Source: Bastek, Sun, Kochmann (2024), arXiv 2403.14404.
    """
    del teacher
    informed = Informed(estimation=estimation, **options["informed"])
    if hides_solution:
        informed = dataclasses.replace(informed, detached=True)
    schedule = make_schedule(informed)

    def recipe(net: EquationNetwork) -> Recipe:
        denoise_of = make_denoise(net, schedule, options["training"]["predicts"], hides_solution)

        def stage_loss(factor: float) -> shared.Loss:
            scaled = informed.scaled(factor)
            return make_loss(net, denoise_of, scaled, make_asked(net, scaled))

        return Recipe("informed", stage_loss, make_model(net, schedule, options, denoise_of))

    return shared.fit_recipe(recipe, task, options, host, key)
