"""A denoiser that is told how large the residual of the clean fields is, and guided towards a residual of zero.

    x0_hat = (1 - w) D(noisy) + w D(noisy; size = 0),   size = |r(x0)| in units of that of a teacher's own samples

The denoiser learns from data, whose size is next to zero, and from samples of its teacher, whose size is about one; a
tenth of them are told nothing. The residual is evaluated once for each example: nothing asks for its slope, so that it
may be learned, or jump.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from phdme_jax.diffusion.preconditioning import Denoise, precondition
from phdme_jax.diffusion.samplers import sample
from phdme_jax.diffusion.schedule import Schedule
from phdme_jax.methods.base import Examples, Fitted, Host, Options, Task
from phdme_jax.methods.equations import network as shared
from phdme_jax.methods.equations.diffusion import Denoising, make_denoising, make_model, teacher_schedule
from phdme_jax.methods.equations.encoding import decode
from phdme_jax.methods.equations.network import EncodedExample, EquationNetwork, Given, Params, Prepared, condition_of
from phdme_jax.methods.sampling.answering import answering_options
from phdme_jax.methods.sampling.guided import fit_guided
from phdme_jax.numerics.bound import Bound
from phdme_jax.systems.equations.base import stacked_residual

CHUNK = 64
HIDDEN_SHARE = 0.1  # of training examples whose size is not told

Residual = Callable[[Array, Array], Array]
"""(fields, condition), physical units -> what should vanish, (*places, equation)."""


@dataclasses.dataclass(frozen=True)
class Told:
    """The group `residual_guidance` of the options, which may be left out.

    Attributes:
      num_own: samples of the teacher that it learns from, beside the data.
      num_calls: of the teacher, a sample.
    """

    num_own: int = 4096
    num_calls: int = 24


class ToldExample(NamedTuple):
    """One training example and the size of its residual."""

    encoded: EncodedExample
    size: Float[Array, ""]


def fit_residual_guidance(
    task: Task,
    options: Options,
    host: Host,
    teacher: Fitted | None,
    key: Key[Array, ""],
    residual: Residual | None = None,
    rule: str = "sda",
) -> Fitted:
    """Residual-conditioned guidance, and that of the observations on top of it.

    Left free by what could be read of the source, and chosen here: own samples are those of a diffusion model trained
    on the data alone, drawn once; the size is the root mean square over equations and places, told as one channel
    beside another that is one where a size is told; the network is trained from new parameters, as long as its teacher.

    Args:
      task: its problem is `Equations`.
      options: groups `data`, `network`, `informed`, `training`, `sampling`, `answers`, of which `guidance` is w, and
        `stages.diffusion`.
      host: where it trains.
      teacher: a `diffusion`.
      key: of the method and seed.
      residual: what is measured, such as a learned one; that of the equations where None.
      rule: how observations guide, see `guided.fit_guided`; without corrections.
    Returns:
      what answers, two calls of the network a step.
    Source: Osaka, Takeishi, Yairi (2026), Self-Augmented Diffusion Guidance, there with 100 steps of DDIM, eta = 1, w =
    2 and a tenth of the sizes hidden.
    """
    assert teacher is not None
    measure = Bound(stacked_residual, task.problem) if residual is None else residual
    trained = _train(task, options, host, teacher, measure, key)
    asked = {**options, "answers": {**options.get("answers", {}), "langevin_corrections": 0}}
    answers = fit_guided(task, asked, host, trained, key, rule)
    model = answers.model
    model = dataclasses.replace(model, num_calls=2 * model.num_calls, num_backward=2 * model.num_backward)
    return answers._replace(model=model)


def _train(
    task: Task, options: Options, host: Host, teacher: Fitted, residual: Residual, key: Key[Array, ""]
) -> Fitted:
    """The denoiser, trained on data and on samples of the teacher: a diffusion model that is guided already."""
    net, schedule = shared.network_of(task, options), teacher_schedule(options)
    told, own_key = make_told(net, schedule, options["training"]["predicts"]), jax.random.fold_in(key, 0)
    chosen = Told(**options.get("residual_guidance", {}))
    own = host.keep(
        f"own_samples_{chosen.num_own}_{chosen.num_calls}",
        lambda: own_samples(net, schedule, teacher, task, chosen, own_key),
    )
    data = told_examples(net, teacher.params, task.train(), Examples(**own), residual)
    first = jax.tree.map(lambda leaf: leaf[0], data.encoded)
    channels = _channels(net, first.given, data.size[0], data.size[0])
    network = net.network.init(jax.random.fold_in(key, 1), first.fields, channels)
    loss, seconds = make_loss(told, make_denoising(options)), dict(teacher.seconds)
    for index, (_, steps, batch, rate) in enumerate(options["stages"]["diffusion"]):
        stage, stage_key, decay = f"told_{index}", jax.random.fold_in(key, 2 + index), options["training"]["ema_decay"]
        network, seconds[stage] = host.train(
            stage, loss, network, data, stage_key, steps=steps, batch=batch, rate=rate, ema_decay=decay
        )
    weight = answering_options(options).guidance

    def guided(network: PyTree, prepared: Prepared) -> Denoise:
        blind, sees = (told(network, prepared.given, 0.0, share) for share in (0.0, 1.0))
        return lambda noisy, t: (1.0 - weight) * blind(noisy, t) + weight * sees(noisy, t)

    model = make_model(net, schedule, options, guided, lambda _, given: Prepared(given, None), calls_a_step=2)
    return Fitted(model, teacher.params._replace(network=network), seconds)


ToldDenoise = Callable[[PyTree, Given, Array | float, Array | float], Denoise]


def make_told(net: EquationNetwork, schedule: Schedule, predicts: str) -> ToldDenoise:
    """Denoiser told a size: (parameters of the network, given, size, sees) -> denoiser; zero for `sees` hides it."""
    denoiser = precondition(net.network, schedule, predicts)

    def told(network: PyTree, given: Given, size: Array | float, sees: Array | float) -> Denoise:
        features = denoiser.encode(network, _channels(net, given, size, sees))
        return lambda noisy, t: denoiser.apply(network, noisy, t, features)

    return told


def _channels(net: EquationNetwork, given: Given, size: Array | float, sees: Array | float) -> Any:
    """What is given, the size where it is told, and whether it is, everywhere alike."""
    dtype = given.channels.dtype
    pair = jnp.stack([jnp.asarray(sees * size, dtype), jnp.asarray(sees, dtype)])
    return condition_of(given.channels, jnp.broadcast_to(pair, (*net.shape[:-1], 2)))


def make_loss(told: ToldDenoise, denoising: Denoising) -> Callable[..., Any]:
    """Denoising loss, the size hidden from some examples: (parameters, example, key) -> (loss, metrics)."""

    def loss(network: PyTree, example: ToldExample, key: Array) -> tuple[Array, dict[str, Array]]:
        loss_key, hidden_key = jax.random.split(key)
        fields, given = example.encoded
        sees = (jax.random.uniform(hidden_key) >= HIDDEN_SHARE).astype(fields.dtype)
        denoise = told(network, given, example.size, sees)
        return denoising(denoise, fields, loss_key)

    return loss


def own_samples(
    net: EquationNetwork, schedule: Schedule, teacher: Fitted, task: Task, chosen: Told, key: Key[Array, ""]
) -> Mapping[str, Any]:
    """Samples of the teacher, by "dpm" in even steps of the logarithm of the noise ratio, whatever it samples with.

    Args:
      net: gives the encodings.
      schedule: of the teacher's noise.
      teacher: a diffusion model.
      task: gives the conditions.
      chosen: how many samples and calls.
      key: random key.
    Returns:
      arrays fields (sample, *grid, field) in physical units and condition (sample, *grid, channel).
    """
    model, params = teacher.model, teacher.params
    assert model.denoise is not None and model.latent is not None
    denoise_of, latent = model.denoise, model.latent

    @jax.jit
    def many(params: Params, condition: Array, keys: Array) -> Array:
        def one(given: tuple[Array, Array]) -> Array:
            condition, key = given
            denoise, noise = denoise_of(params, model.prepare(params, condition)), latent(key)
            steps: dict[str, Any] = {"sampler": "dpm", "num_steps": chosen.num_calls, "spacing": "log_snr"}
            return decode(params.fields, net.kinds, sample(denoise, schedule, noise, key, **steps))

        return jax.lax.map(one, (condition, keys), batch_size=CHUNK)

    condition_key, sample_key = jax.random.split(key)
    condition = jnp.asarray(task.starts(condition_key, chosen.num_own))
    return {"fields": many(params, condition, jax.random.split(sample_key, len(condition))), "condition": condition}


def told_examples(
    net: EquationNetwork, params: Params, data: Examples, own: Examples, residual: Residual
) -> ToldExample:
    """Data and own samples with the sizes of their residuals, leaves with a leading axis, the data first.

    Each equation counts in units of its root mean square over the own samples, whose sizes are one on average square.
    """
    fields, condition = (
        jnp.concatenate([jnp.asarray(first), jnp.asarray(last)]) for first, last in zip(data[:2], own[:2], strict=True)
    )
    both = Examples(fields, condition)

    @jax.jit
    def squares(fields: Array, condition: Array) -> Array:
        def one(pair: tuple[Array, Array]) -> Array:
            found = residual(*pair)
            return jnp.mean(found**2, axis=tuple(range(found.ndim - 1)))

        return jax.lax.map(one, (fields, condition), batch_size=CHUNK)

    found = squares(both.fields.astype(float), both.condition.astype(float))
    usual = jnp.mean(found[len(data.fields) :], axis=0)
    size = jnp.sqrt(jnp.mean(found / jnp.where(usual > 0, usual, 1.0), axis=-1))
    return ToldExample(shared.encode_examples(net, params, both), size.astype(net.dtype))
