"""A trained conditional generator as a model: its static design, its parameters, and the functions of one example."""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from phdme_jax.diffusion.networks import Network
from phdme_jax.diffusion.propagator import Propagator, propagate
from phdme_jax.methods.base import Dynamics, Model, Normaliser, Start, Times
from phdme_jax.methods.energy.dynamics import resampled
from phdme_jax.methods.energy.losses import Around, PhysicsTerms, generate
from phdme_jax.methods.energy.options import SCHEDULE, PhysicsOptions
from phdme_jax.methods.energy.spread import predicted_scale
from phdme_jax.systems.energy.base import Structure, injected


@dataclass(frozen=True)
class Fields:
    """Fields of a generator: those that move, companions that never change, and the inputs of the ports.

    Attributes:
      structure: operators of the first two.
      companions: how many of its last fields never change.
    """

    structure: Structure
    companions: int = 0

    @property
    def moving(self) -> int:
        """How many fields move."""
        return len(self.structure.fields) - self.companions

    @property
    def ports(self) -> int:
        """How many inputs there are."""
        return len(self.structure.ports)

    @property
    def parity(self) -> tuple[tuple[int, ...], ...]:
        """Of all fields about the ends; inputs are the same everywhere."""
        axes = len(self.structure.grid.points)
        return (*self.structure.parity, *((1,) * axes,) * self.ports)

    def known(self, num_frames: int, exact_start: bool) -> Float[np.ndarray, "time *grid field"]:
        """One where a sample equals the mean: an exact start, fields held at the ends, companions and inputs."""
        known = np.zeros((num_frames, *self.structure.grid.points, len(self.parity)), np.float32)
        known[0] = exact_start
        for field, parities in enumerate(self.parity):
            for axis, parity in enumerate(parities):
                if parity < 0:
                    np.moveaxis(known[..., field], 1 + axis, 0)[[0, -1]] = 1.0
        known[..., self.moving :] = 1.0
        return known

    def with_inputs(self, states: Array, inputs: Array) -> Array:
        """States (*axes, *grid, field) with inputs (*axes, port) as further fields."""
        axes = inputs.ndim - 1
        spread = jnp.reshape(inputs, (*inputs.shape[:axes], *(1,) * len(self.structure.grid.points), inputs.shape[-1]))
        return jnp.concatenate([states, jnp.broadcast_to(spread, (*states.shape[:-1], inputs.shape[-1]))], axis=-1)

    def rate(self, dynamics: Dynamics, params: PyTree, state: Float[Array, "*grid field"]) -> Array:
        """Rate of a state with inputs as further fields; how these change is not for the dynamics to say."""
        if not self.ports:
            return dynamics.rate(params, state)
        fields = len(self.structure.fields)
        # an input is the same at every point
        inputs = state.reshape(-1, state.shape[-1])[0, fields:]
        rates = dynamics.rate(params, state[..., :fields]) + injected(self.structure, inputs)
        return jnp.concatenate([rates, jnp.zeros_like(state[..., fields:])], axis=-1)


@dataclass(frozen=True)
class Design:
    """All of a generator but its arrays.

    Attributes:
      fields: its fields.
      times: of its frames.
      input_times: of the inputs that conditions hold.
      propagator: the learned step whose repetition is the conditional mean; None where it is the mean rollout.
      denoiser: preconditioned network.
      num_steps: noise levels of the sampler.
      exact_start: whether the first frame is known.
      dynamics: of the teacher; None without one.
      substeps: its integration steps between frames.
    """

    fields: Fields
    times: Times
    input_times: Times
    propagator: Propagator | None
    denoiser: Network
    num_steps: int
    exact_start: bool = True
    dynamics: Dynamics | None = None
    substeps: int = 1


class GeneratorParams(NamedTuple):
    """Arrays of a generator; None for what a design does without.

    Attributes:
      normaliser: units of the fields.
      scale: root mean square of what the mean leaves, (time, *ones, field).
      amplitude: correction of the size of deviations, (time, *ones, field).
      propagator: of the learned step.
      spread: of the network that tells the scale from the mean.
      denoiser: of its network.
      energy: parameters of the dynamics, where the mean is their rollout.
    """

    normaliser: Normaliser
    scale: PyTree = None
    amplitude: PyTree = None
    propagator: PyTree = None
    spread: PyTree = None
    denoiser: PyTree = None
    energy: PyTree = None


def conditional_mean(design: Design, params: GeneratorParams, start: Start) -> Float[Array, "time *grid field"]:
    """The mean that samples are drawn around, normalised, float32."""
    units, dtype = params.normaliser, params.normaliser.scale.dtype
    if design.propagator is not None:
        state = units.normalised(start.state).astype(dtype)
        return propagate(design.propagator, params.propagator, state, len(design.times))
    assert design.dynamics is not None
    told = start._replace(inputs=resampled(start.inputs, design.input_times, design.times))
    path = design.dynamics.rollout(params.energy, told, design.times, design.substeps).trajectory
    return units.normalised(design.fields.with_inputs(path, told.inputs)).astype(dtype)


def scale_of(params: GeneratorParams, mean: Float[Array, "time *grid field"]) -> Float[Array, "..."]:
    """Scale of what a mean leaves, (time, *ones, field)."""
    return params.scale if params.spread is None else predicted_scale(params.spread, params.scale, mean)


@lru_cache
def make_model(design: Design) -> Model:
    """The model of a design; the same record for the same design."""
    fields, moving = design.fields, design.fields.moving
    shape = (len(design.times), *fields.structure.grid.points, len(fields.parity))
    known, sampler = fields.known(shape[0], design.exact_start), (SCHEDULE, design.num_steps)

    def prepare(params: GeneratorParams, start: Start) -> Around:
        mean = conditional_mean(design, params, start)
        return Around(mean, scale_of(params, mean) * params.amplitude)

    def draw(params: GeneratorParams, around: Around, latent: Array, key: Array) -> Array:
        sampler_key = jax.random.split(key)[1]
        drawn = generate(
            design.denoiser, params.denoiser, around, jnp.asarray(known, latent.dtype), latent, sampler_key, sampler
        )
        return params.normaliser.physical(drawn)[..., :moving]

    def floor(params: GeneratorParams) -> Array:
        return (jnp.sqrt(jnp.mean(params.scale**2)) * params.normaliser.scale)[:moving]

    return Model(
        prepare=prepare,
        draw=draw,
        # networks are trained in single precision
        latent=lambda key: jax.random.normal(jax.random.split(key)[0], shape, jnp.float32),
        mean=lambda params, around: params.normaliser.physical(around.mean)[..., :moving],
        floor=floor,
        times=design.times,
        num_calls=design.num_steps,
        dynamics=design.dynamics,
    )


def physics_terms(
    design: Design, options: PhysicsOptions, normaliser: Normaliser, energy: PyTree, observed: bool
) -> PhysicsTerms:
    """Residual and boundary terms in normalised units; without dynamics there is no residual.

    Args:
      design: of the generator; its dynamics are those of the residual.
      options: weights and target.
      normaliser: units of the fields.
      energy: parameters of the dynamics.
      observed: whether all examples are observed ones, whose residual is to be zero.
    Returns:
      the terms.
    """
    fields, dynamics = design.fields, design.dynamics
    rate = None
    if dynamics is not None and options.residual_weight > 0:
        learned = partial(fields.rate, dynamics, energy)

        def rate(state: Array) -> Array:
            return learned(normaliser.physical(state)) / normaliser.scale

    return PhysicsTerms(
        rate=rate,
        boundary=lambda state: fields.structure.boundary(state[..., : len(fields.structure.fields)]),
        residual_weight=options.residual_weight,
        boundary_weight=options.boundary_weight,
        target="zero" if observed else options.residual_target,
    )
