"""Baselines that learn the dynamics by a network, of a few numbers or of fields on a grid.

    NeuralODE            x_t = f(x, u)                            on a grid, f of the neighbours of each point
    Hamiltonian network  x_t = (J - R(theta)) grad H(x) + G u     H a network, theta learned, the structure known;
                                                                  on a grid, the energy density is a network

Both are trained on windows of the observed trajectories, through the solver.
Source: Chen et al. (2018), arXiv 1806.07366 (NeuralODE); Greydanus, Dzamba, Yosinski (2019), arXiv 1906.01563, and
Desai et al. (2021), arXiv 2107.08024 (Hamiltonian networks with damping and forcing).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from phdme_jax.numerics.interpolation import interpolate
from phdme_jax.numerics.parity import Parity, inside, neighbourhood
from phdme_jax.systems.energy.base import Structure, at_points, injected


class NeuralField(eqx.Module):
    """x_t = f(x, u), a multilayer perceptron of the normalised states within a radius of each point.

    Attributes:
      network: the perceptron.
      scale: of each field.
      parity: of each field past the ends of the grid; without axes the network sees the whole state.
      radius: reach in grid points.
    """

    network: eqx.nn.MLP
    scale: Float[Array, "field"]
    parity: Parity = eqx.field(static=True)
    radius: int = eqx.field(static=True)

    def __init__(
        self,
        scale: Array,
        num_ports: int,
        width: int,
        depth: int,
        key: PRNGKeyArray,
        parity: Parity | None = None,
        radius: int = 0,
    ) -> None:
        size = scale.shape[0]
        self.parity, self.radius, self.scale = parity or ((),) * size, radius, scale
        seen = size * (2 * radius + 1) ** len(self.parity[0]) + num_ports
        self.network = eqx.nn.MLP(seen, size, width, depth, jax.nn.tanh, key=key, dtype=scale.dtype)

    def __call__(self, state: Float[Array, "*grid field"], inputs: Float[Array, "port"]) -> Float[Array, "*grid field"]:
        """Rate of a state under inputs."""
        scale = jax.lax.stop_gradient(self.scale)
        around = neighbourhood(state / scale, self.parity, self.radius)
        rates = at_points(lambda seen: self.network(jnp.concatenate([seen, inputs])), around)
        return scale * rates * inside(state, self.parity)


class HamiltonianField(eqx.Module):
    """x_t = (J - R) grad H + G u, the energy (density) a quadratic form and a perceptron of the normalised state.

        h(x) = s^2 [ sum_i exp(a_i) z_i^2 / 2 + MLP(z) ],   z_i = x_i / s_i,   s = mean s_i

    The quadratic form lets fields on a grid start as waves do.
    """

    network: eqx.nn.MLP
    scale: Float[Array, "field"]
    log_stiffness: Float[Array, "field"]
    log_parameters: Float[Array, "parameter"]
    structure: Structure = eqx.field(static=True)

    def __init__(
        self, structure: Structure, scale: Array, width: int, depth: int, key: PRNGKeyArray, dissipation: float = 0.03
    ) -> None:
        size = scale.shape[0]
        network = eqx.nn.MLP(size, "scalar", width, depth, jax.nn.tanh, key=key, dtype=scale.dtype)
        # the perceptron starts small beside the quadratic form
        self.network = eqx.tree_at(lambda one: one.layers[-1].weight, network, 0.1 * network.layers[-1].weight)
        self.scale = scale
        self.log_stiffness = jnp.zeros_like(scale)
        self.log_parameters = jnp.full((len(structure.parameters),), jnp.log(dissipation), scale.dtype)
        self.structure = structure

    def energy(self, state: Float[Array, "field"]) -> Float[Array, ""]:
        """Learned energy (density) of one point's state, up to a constant."""
        scale = jax.lax.stop_gradient(self.scale)
        unit = state / scale
        quadratic = 0.5 * jnp.sum(jnp.exp(self.log_stiffness) * unit**2)
        return jnp.mean(scale) ** 2 * (quadratic + self.network(unit))

    def parameters(self) -> dict[str, Float[Array, ""]]:
        """Learned dissipation parameters by name."""
        return dict(zip(self.structure.parameters, jnp.exp(self.log_parameters), strict=True))

    def __call__(self, state: Float[Array, "*grid field"], inputs: Float[Array, "port"]) -> Float[Array, "*grid field"]:
        """Rate of a state under inputs."""
        rates = self.structure.flow(at_points(jax.grad(self.energy), state), self.parameters())
        return rates + injected(self.structure, inputs) if self.structure.ports else rates


Field = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class FieldFactory:
    """A network of rates apart from its arrays.

    Attributes:
      init: (scale of the fields, key) -> parameters, a list of arrays.
      field: parameters -> the network.
    """

    init: Callable[[Array, Array], PyTree]
    field: Callable[[PyTree], Any]


def field_factory(make: Callable[[Array, Array], Any], num_fields: int) -> FieldFactory:
    """Take a network apart.

    Args:
      make: (scale of the fields, key) -> untrained network.
      num_fields: number of fields.
    Returns:
      the factory.
    """
    empty = make(jnp.ones(num_fields), jax.random.key(0))
    tree = jax.tree.structure(eqx.filter(empty, eqx.is_inexact_array))
    static = eqx.filter(empty, eqx.is_inexact_array, inverse=True)
    return FieldFactory(
        init=lambda scale, key: jax.tree.leaves(eqx.filter(make(scale, key), eqx.is_inexact_array)),
        field=lambda params: eqx.combine(jax.tree.unflatten(tree, params), static),
    )


def solve_field(
    field: Field,
    state: Float[Array, "*grid field"],
    times: Float[Array, "time"],
    inputs: Float[Array, "time port"],
    substeps: int = 2,
) -> Float[Array, "time *grid field"]:
    """Integrate a learned field by the fifth-order method of Tsitouras with even steps.

    Args:
      field: (state, inputs) -> rate.
      state: at the first time.
      times: evenly spaced output times, at least four.
      inputs: u at the output times, interpolated between them; no columns without ports.
      substeps: steps between output times.
    Returns:
      states at the output times, not finite where the solution blew up.
    """

    def rate(time: Any, current: Array, _: Any) -> Array:
        return field(current, interpolate(times, inputs, time))

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(rate),
        diffrax.Tsit5(),
        t0=times[0],
        t1=times[-1],
        dt0=(times[1] - times[0]) / substeps,
        y0=state,
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=diffrax.ConstantStepSize(),
        adjoint=diffrax.RecursiveCheckpointAdjoint(),
        max_steps=substeps * times.shape[0] + 8,
        throw=False,
    )
    return solution.ys


def window_loss(
    field: Field,
    states: Float[Array, "time field"],
    times: Float[Array, "time"],
    inputs: Float[Array, "time port"],
    scale: Float[Array, "field"],
    window: int,
    key: PRNGKeyArray,
) -> Float[Array, ""]:
    """Mean squared error, in units of the fields' scale, over a random window started from its first observed state.

    Args:
      field: (state, inputs) -> rate.
      states: observed trajectory.
      times: its evenly spaced times.
      inputs: u at these times.
      scale: of each field.
      window: frames after the first one, at least three.
      key: random key.
    Returns:
      the loss.
    """
    start = jax.random.randint(key, (), 0, times.shape[0] - window)
    truth, span, driven = (jax.lax.dynamic_slice_in_dim(array, start, window + 1) for array in (states, times, inputs))
    forecast = solve_field(field, truth[0], span, driven, substeps=1)
    return jnp.mean(((forecast - truth) / scale) ** 2)
