"""What every network of fields that obey known equations shares: encoded examples, stages of training, drawing.

Physics enters in training (constraints on what the model predicts), as an input (the gradient of the residual), or
after sampling (correction, or the solution computed anew). A method brings the loss and the model; the rest is here.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from phdme_jax.diffusion import NETWORKS
from phdme_jax.diffusion.networks import Condition, Network
from phdme_jax.methods.base import Examples, Fitted, Host, Model, Options, Task
from phdme_jax.methods.equations.encoding import Encoding, decode, encode, fit_encoding, isotropic
from phdme_jax.systems.equations.base import Equations

FLAT = 1e-9  # standard deviation below which a channel of the condition counts as constant
Loss = Callable[[PyTree, "EncodedExample", Array], tuple[Array, dict[str, Array]]]
Field = Callable[[Array, Array], Array]  # denoiser or velocity of normalised fields and a time
Prepare = Callable[[PyTree, "Given"], "Prepared"]  # of the parameters of the network
FieldOf = Callable[[PyTree, "Prepared"], Field]  # of the parameters of the network


class Given(NamedTuple):
    """What is known of one example before its fields; arrays only, of the type of the network.

    Attributes:
      condition: what is given, physical units.
      channels: the same, normalised, as networks see it.
      encoding: of the fields.
    """

    condition: Float[Array, "*grid channel"]
    channels: Float[Array, "*grid channel"]
    encoding: Encoding


class EncodedExample(NamedTuple):
    """One training example: normalised fields, and what is given."""

    fields: Float[Array, "*grid field"]
    given: Given


class Params(NamedTuple):
    """Arrays of a fitted method: the network's parameters, the encodings of fields and of what is given.

    And the size of each residual where a method weighs them, see `methods.equations.residual_size`.
    """

    network: PyTree
    fields: Encoding
    given: Encoding
    residual_scale: Float[Array, "equation"] | None = None


class Prepared(NamedTuple):
    """What all samples of a condition share; no features where the network sees more than the condition."""

    given: Given
    features: PyTree


class Sampling(NamedTuple):
    """The group `sampling` of the options.

    Attributes:
      num_steps: noise levels of diffusion models.
      sampler: of diffusion models, see `samplers.sample`.
      spacing: of the noise levels of diffusion models, see `samplers.sample`.
      flow_steps: steps of flows.
      flow_method: "euler" in even steps, or "dpm" in even steps of the logarithm of the noise ratio, one call each;
        with physics (`pbfm`) always "euler".
      corrections: steps of the correction during the last levels, one each, and at the end.
      correction_rule: see `correction.correct_once`.
      refinements: gradient steps on the noise of `piddm_ref`.
      refinement_rate: of these steps.
      noise_weight: pull of that noise towards its usual size, mean square one.
      map_steps: stretches of flow maps.
      walk_steps: of `random_walk_prior`, even.
    """

    num_steps: int = 100
    sampler: str = "ddpm"
    spacing: str = "time"
    flow_steps: int = 20
    flow_method: str = "euler"
    corrections: tuple[int, int] = (50, 25)
    correction_rule: str = "exact"
    refinements: int = 20
    refinement_rate: float = 1e-2
    noise_weight: float = 0.0
    map_steps: int = 1
    walk_steps: int = 5


@dataclasses.dataclass(frozen=True)
class EquationNetwork:
    """A raw network and how fields come to it; static.

    Attributes:
      equations: what the fields obey.
      network: of normalised fields, told the normalised condition.
      kinds: encoding of each field, see `encoding`.
      shape: of an example's fields.
      dtype: type of parameters, examples and noise.
      flow_predicts: what the network of a flow predicts, see `flow.velocity_from_network`.
    """

    equations: Equations
    network: Network
    kinds: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str = "float32"
    flow_predicts: str = "velocity"


def network_of(task: Task, options: Options) -> EquationNetwork:
    """The network of a task's problem, the same for teachers, students and what samples with them."""
    shape, kinds = task.train().fields.shape[1:], tuple(options["data"]["kinds"])
    predicts = options["training"].get("flow_predicts", "velocity")
    return EquationNetwork(
        task.problem, make_network(shape, **options["network"]), kinds, shape, flow_predicts=predicts
    )


def make_network(shape: tuple[int, ...], name: str, **sizes: Any) -> Network:
    """A network of `phdme_jax.diffusion.NETWORKS`: `make_network(shape, **options["network"])`.

    Raises:
      ValueError: unknown name, or sizes of another network.
    """
    if name not in NETWORKS:
        raise ValueError(f"expected a network among {tuple(NETWORKS)}, got {name!r}")
    told = {"shape": shape} if name == "mlp" else {}
    try:
        return NETWORKS[name](**sizes, **told)
    except TypeError as error:
        raise ValueError(f"expected sizes of the network {name}, got {', '.join(sizes)}: {error}") from error


def condition_of(channels: Float[Array, "*grid channel"], gradient: Array | None = None) -> Condition:
    """What the network is told beside the noisy fields, as channels."""
    told = [channels] if channels.shape[-1] else []
    if gradient is not None:
        told.append(gradient)
    return Condition(rollout=jnp.concatenate(told, axis=-1)) if told else Condition()


def _linear(condition: Array) -> tuple[str, ...]:
    return ("linear",) * condition.shape[-1]


def fit_params(net: EquationNetwork, examples: Examples, network: PyTree = None) -> Params:
    """Encodings of a training set; conditions that never change are left at their scale.

    Channels that a symmetry of the problem mixes share their encoding.
    """
    condition = jnp.asarray(examples.condition)
    given = fit_encoding(condition, _linear(condition))
    fields, symmetry = fit_encoding(jnp.asarray(examples.fields), net.kinds), net.equations.priors.symmetry
    if symmetry is not None:
        fields = isotropic(fields, symmetry.mixed)
        given = isotropic(given, symmetry.mixed_conditions)
    given = given._replace(scale=jnp.where(given.scale > FLAT, given.scale, 1.0))
    encodings = fields, given
    return Params(network, *jax.tree.map(lambda leaf: leaf.astype(net.dtype), encodings))


def give(params: Params, condition: Float[Array, "*grid channel"]) -> Given:
    """What is given of one example, of a condition in physical units."""
    dtype = params.fields.scale.dtype
    channels = encode(params.given, _linear(condition), condition)
    return Given(condition.astype(dtype), channels.astype(dtype), params.fields)


def encode_examples(net: EquationNetwork, params: Params, examples: Examples) -> EncodedExample:
    """Examples as networks see them, leaves with a leading sample axis."""
    fields = encode(params.fields, net.kinds, jnp.asarray(examples.fields)).astype(net.dtype)
    given = give(params, jnp.asarray(examples.condition))
    many = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(fields), *leaf.shape)), given.encoding)
    return EncodedExample(fields, given._replace(encoding=many))


def fit_encoded(net: EquationNetwork, examples: Examples) -> tuple[Params, EncodedExample]:
    """Encodings of a training set without a network's parameters, and the set as networks see it."""
    params = fit_params(net, examples)
    return params, encode_examples(net, params, examples)


def few_examples(net: EquationNetwork, task: Task, count: int) -> EncodedExample:
    """The first examples of a task as networks see them, encoded as all of them are."""
    examples = task.train()
    few = examples._replace(fields=examples.fields[:count], condition=examples.condition[:count])
    return encode_examples(net, fit_params(net, examples), few)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a method makes of a network.

    Attributes:
      stages: name of its stages in the options, each (number, steps, batch, rate).
      loss: number of a stage -> loss of one example.
      model: how it answers.
      sees_gradient: whether the network is told a gradient of the shape of the fields.
    """

    stages: str
    loss: Callable[[float], Loss]
    model: Model
    sees_gradient: bool = False


def init_network(net: EquationNetwork, example: EncodedExample, sees_gradient: bool, key: Key[Array, ""]) -> PyTree:
    """Parameters of the network for examples of this shape."""
    gradient = jnp.zeros_like(example.fields) if sees_gradient else None
    return net.network.init(key, example.fields, condition_of(example.given.channels, gradient))


def fit_recipe(
    make_recipe: Callable[[EquationNetwork], Recipe],
    task: Task,
    options: Options,
    host: Host,
    key: Key[Array, ""],
    net: EquationNetwork | None = None,
    encoded: Callable[[EquationNetwork, Examples], tuple[Params, EncodedExample]] | None = None,
) -> Fitted:
    """Train a network in the stages of its kind.

    Args:
      make_recipe: network -> its loss and model.
      task: its problem is `Equations`.
      options: groups `network`, `data`, `stages` and `training`.
      host: where it trains.
      key: of the method and seed.
      net: the network; that of the options where None.
      encoded: (network, examples) -> parameters without a network, and examples as it sees them; by `fit_params` where
        None.
    Returns:
      the fitted method, its parameters a `Params`.
    """
    examples, net = task.train(), net or network_of(task, options)
    recipe, (params, data) = make_recipe(net), (encoded or fit_encoded)(net, examples)
    init_key, train_key = jax.random.split(key)
    network = init_network(net, jax.tree.map(lambda leaf: leaf[0], data), recipe.sees_gradient, init_key)
    ema_decay, seconds = options["training"]["ema_decay"], {}
    for index, (number, steps, batch, rate) in enumerate(options["stages"][recipe.stages]):
        stage, stage_key, loss = f"{recipe.stages}_{index}", jax.random.fold_in(train_key, index), recipe.loss(number)
        network, seconds[stage] = host.train(
            stage, loss, network, data, stage_key, steps=steps, batch=batch, rate=rate, ema_decay=ema_decay
        )
    return Fitted(recipe.model, params._replace(network=network), seconds)


def make_prepare(net: EquationNetwork) -> Prepare:
    """The condition encoded once for all noise levels."""
    return lambda network, given: Prepared(given, net.network.encode(network, condition_of(given.channels)))


def make_draw(
    kinds: tuple[str, ...], field: Callable[[PyTree, PyTree], Field], sample: Callable[[Field, Array, Array], Array]
) -> Callable[[PyTree, PyTree, Array, Array], Array]:
    """Drawing of fields in physical units, with the second half of a sample's key.

    Args:
      kinds: encoding of each field.
      field: (params, prepared) -> denoiser or velocity.
      sample: (denoiser or velocity, latent, key) -> normalised fields.
    Returns:
      (params, prepared, latent, key) -> fields.
    """

    def draw(params: Params, prepared: Prepared, latent: Array, key: Array) -> Array:
        drawn = sample(field(params, prepared), latent, jax.random.split(key)[1])
        return decode(params.fields, kinds, drawn)

    return draw


def make_model(
    net: EquationNetwork,
    prepare: Prepare,
    field_of: FieldOf,
    sample: Callable[[Field, Array, Array], Array],
    calls: int,
) -> Model:
    """A network as the protocol wants it, its parameters a `Params`; latents take the first half of a sample's key.

    Args:
      net: the network.
      prepare: see `make_prepare`.
      field_of: (parameters of the network, prepared) -> denoiser or velocity.
      sample: (denoiser or velocity, latent, key) -> normalised fields.
      calls: of the network a sample.
    Returns:
      the model.
    """

    def field(params: Params, prepared: Prepared) -> Field:
        return field_of(params.network, prepared)

    return Model(
        prepare=lambda params, condition: prepare(params.network, give(params, condition)),
        draw=make_draw(net.kinds, field, sample),
        latent=lambda key: jax.random.normal(jax.random.split(key)[0], net.shape, net.dtype),
        denoise=field,
        sample=sample,
        num_calls=calls,
    )
