"""Energy-consistent neural operator: a learned time step and a learned energy that must agree, no equation known.

    loss = |forecast - data|^2 + weight mean (u_t - G dH/du)^2,   H = mean over x of h(u, u_x)

u_t is the derivative of the operator's own prediction by the time, a fraction of a step that the operator is told, and
dH/du the functional derivative, both by automatic differentiation. The operator is that of `fno` and is trained as that
is, so that the penalty is all that differs.

G is chosen by whether the problem says that its energy is kept, as by a user who knows that much of the physics:

    kept:      u_t = -D dH/du                 D the derivative along the ring, skew: H does not change
    not kept:  u_t = -D dH/du + D^2 dS/du     the first part leaves H as it is, the second never lets S grow

With G = -D advection u_t + c u_x = 0 has H = mean c u^2 / 2. Burgers' equation has H = mean u^3 / 6 and the dissipation
of S = mean nu u^2 / 2, which no single energy under one G gives. Both keep the mean. h and the density of S are two
outputs of one network, which works in units in which changes between frames and slopes are of order one.
Source: Tanaka, Yaguchi, Iwata, Ueda (2025), AISTATS, arXiv 2402.09018, of which the abstract alone was read. There the
operator's form is another; the second functional and the step from frame to frame are ours.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from phdme_jax.diffusion.networks import Linear, draw_params, repeated
from phdme_jax.files import InputError
from phdme_jax.methods.base import Fitted, Host, Model, Options, Task
from phdme_jax.methods.baselines.field_networks import Loss, train_windows, window_losses
from phdme_jax.methods.baselines.fourier_operator import FourierOperator, flow, init_flow
from phdme_jax.methods.baselines.ring_operator import (
    FrameParams,
    Kinds,
    encoded_frames,
    frames_model,
    ring_operator,
    window_example,
)
from phdme_jax.methods.energy.losses import Example
from phdme_jax.methods.energy.options import cut_windows
from phdme_jax.methods.equations.encoding import decode, encode
from phdme_jax.numerics.bound import Bound
from phdme_jax.systems.equations.base import Equations
from phdme_jax.systems.equations.burgers import periodic_derivative

Densities = Callable[[Array, Array], Array]
"""(u (x, 1), its slope (x, 1)) -> densities of H and, maybe, of S, (x, functional)."""


class Scales(NamedTuple):
    """Sizes in the training set, normalised fields.

    Attributes:
      rate: root mean square of what changes between frames.
      length: root mean square of the fields over that of their slopes, in units of the ring's circumference.
    """

    rate: Float[Array, "*batch"]
    length: Float[Array, "*batch"]


class Networks(NamedTuple):
    """Parameters of the operator and of the energy."""

    operator: PyTree
    energy: PyTree


class ScaledExample(NamedTuple):
    """One training trajectory, and the sizes of all."""

    example: Example
    scales: Scales


class _Energy(nn.Module):
    """Densities at each place of a field and its slope; none before training."""

    width: int
    depth: int
    outputs: int
    param_dtype: Any

    @nn.compact
    def __call__(self, state: Float[Array, "x 1"], slope: Float[Array, "x 1"]) -> Float[Array, "x output"]:
        hidden = jnp.concatenate([state, slope], axis=-1)
        for _ in range(self.depth):
            hidden = jnp.tanh(Linear(self.width, self.param_dtype)(hidden))
        return Linear(self.outputs, self.param_dtype, zero=True)(hidden)


def fit_scales(frames: Float[Array, "sample time x 1"]) -> Scales:
    """Sizes of normalised frames."""
    slope = jax.vmap(jax.vmap(lambda frame: periodic_derivative(frame, 1)))(frames)
    rate = jnp.sqrt(jnp.mean(jnp.diff(frames, axis=1) ** 2))
    return Scales(rate, jnp.sqrt(jnp.mean(frames**2) / jnp.mean(slope**2)))


def energy_rate(
    densities: Densities, state: Float[Array, "x 1"], length: Float[Array, ""]
) -> tuple[Float[Array, "x 1"], Float[Array, "functional x 1"]]:
    """What the energies say of the motion.

        D = length d/dx,   rate = -D dH/du + D^2 dS/du,   H, S = mean over x of densities(u, D u)

    Args:
      densities: of H and, maybe, S.
      state: u at evenly spaced places of a ring of circumference one.
      length: unit of length.
    Returns:
      the rate, and the functional derivatives.
    """

    def functionals(state: Array) -> Array:
        return jnp.mean(densities(state, length * periodic_derivative(state, 1)), axis=0)

    found = len(state) * jax.jacrev(functionals)(state)
    rate = -length * periodic_derivative(found[0], 1)
    if len(found) == 2:
        rate = rate + length**2 * periodic_derivative(found[1], 2)
    return rate, found


def energy_penalty(
    path: Callable[[Array], Array], fraction: Float[Array, ""], densities: Densities, scales: Scales
) -> Float[Array, ""]:
    """Mean square of what the motion of a prediction differs from that of its energy, normalised fields and frames.

    A weight of one asks as much of a motion as the misfit of the next frame does.

    Args:
      path: fraction of a step -> predicted state (x, 1).
      fraction: at which both are compared.
      densities: see `energy_rate`.
      scales: of the training set.
    Returns:
      the penalty; the mean square of the motion where the energy is constant.
    """
    state, motion = jax.jvp(path, (fraction,), (jnp.ones_like(fraction),))
    rate, _ = energy_rate(densities, state, scales.length)
    return jnp.mean((motion - scales.rate * rate) ** 2)


class EnergyOptions(NamedTuple):
    """The group `baselines.eno`.

    Attributes:
      width: of the network of the energy.
      depth: hidden layers of it.
      weight: of the penalty.
    """

    width: int = 32
    depth: int = 2
    weight: float = 0.1


def _forecast(config: FourierOperator, params: PyTree, start: Array, num_frames: int) -> Array:
    whole = jnp.ones((), start.dtype)
    return repeated(lambda state: flow(config, params, state, whole), start, num_frames)


def make_loss(config: FourierOperator, energy: _Energy, weight: float, of_data: Loss) -> Loss:
    """Misfit of a window, and the penalty at a random fraction of a step from a random frame.

    Args:
      config: the operator.
      energy: network of the densities.
      weight: of the penalty.
      of_data: loss of the operator alone.
    Returns:
      (`Networks`, `ScaledExample`, key) -> (loss, metrics).
    """

    def loss(params: Networks, item: ScaledExample, key: Array) -> tuple[Array, dict[str, Array]]:
        frame_key, fraction_key = jax.random.split(jax.random.fold_in(key, 1))
        total, metrics = of_data(params.operator, item.example, key)
        frames = item.example.state
        begin = frames[jax.random.randint(frame_key, (), 0, len(frames) - 1)]
        fraction = jax.random.uniform(fraction_key, (), frames.dtype)

        def densities(state: Array, slope: Array) -> Any:
            return energy.apply({"params": params.energy}, state, slope)

        penalty = energy_penalty(
            lambda fraction: flow(config, params.operator, begin, fraction), fraction, densities, item.scales
        )
        return total + weight * penalty, {**metrics, "penalty": penalty}

    return loss


def _continued(config: FourierOperator, kinds: Kinds, params: FrameParams, frame: Array, num_frames: int) -> Array:
    start = encode(params.encoding, kinds, frame)
    return decode(params.encoding, kinds, _forecast(config, params.network.operator, start, num_frames))


@lru_cache
def _model(equations: Equations, config: FourierOperator, kinds: Kinds) -> Model:
    return frames_model(equations, Bound(_continued, config, kinds))


def _init(config: FourierOperator, energy: _Energy, frame: Array, key: Array) -> Networks:
    operator_key, energy_key = jax.random.split(key)
    shapes = jax.eval_shape(lambda: energy.init(energy_key, frame, frame)["params"])
    return Networks(init_flow(config, frame, operator_key), draw_params(shapes, energy_key))


def fit_energy_operator(
    task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]
) -> Fitted:
    """Operator and energy trained together.

    Args:
      task: its problem is `Equations` of one field on a ring whose first frames are given. It is asked whether it keeps
        an "energy", and nothing else.
      options: groups `data` and `baselines` as for `fno`, whose sizes and stages these are too, and `baselines.eno`,
        see `EnergyOptions`.
      host: where it trains.
      teacher: none.
      key: of the method and seed.
    Returns:
      the fitted method, without a distribution, its parameters `FrameParams` of `Networks`.
    Raises:
      InputError: several fields or axes, or see `ring_operator`.
    """
    del teacher
    equations, group, kinds = task.problem, options.get("baselines", {}), tuple(options["data"]["kinds"])
    if len(equations.fields) > 1 or len(equations.grid.points) > 2:
        raise InputError(f"eno knows the motion of one field on a line, and {equations.name} is more; leave it out")
    config, chosen = ring_operator("eno", equations, options), EnergyOptions(**group.get("eno", {}))
    encoding, frames = encoded_frames(equations, kinds, task.train())
    kept = any(name == "energy" for name, _ in equations.priors.invariants)
    energy = _Energy(chosen.width, chosen.depth, 1 if kept else 2, frames.dtype)
    init_key, train_key = jax.random.split(key)
    params = _init(config, energy, frames[0, 0], init_key)
    data_losses = window_losses(Bound(_forecast, config), frames.shape[1], group["start_noise"])
    scales = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(frames),)), fit_scales(frames))
    params, seconds = train_windows(
        lambda window: make_loss(config, energy, chosen.weight, data_losses(window)),
        cut_windows(group["stages"]["fno"], frames.shape[1]),
        params,
        ScaledExample(window_example(frames), scales),
        group["ema_decay"],
        host,
        train_key,
    )
    return Fitted(_model(equations, config, kinds), FrameParams(encoding, params), seconds)
