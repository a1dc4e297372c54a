"""Baselines that learn the dynamics by a network, for systems of finite dimension with or without inputs.

    NeuralODE            x_t = f(x, u)                            nothing is known
    Hamiltonian network  x_t = (J - R(theta)) grad H(x) + G u     H a network, theta learned, the structure known

Both are trained on windows of the observed trajectories, through the solver.
Source: Chen et al. (2018), arXiv 1806.07366 (NeuralODE); Greydanus, Dzamba, Yosinski (2019), arXiv 1906.01563, and
Desai et al. (2021), arXiv 2107.08024 (Hamiltonian networks with damping and forcing).
"""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from phdme_jax.numerics.interpolation import interpolate
from phdme_jax.systems.base import Structure, injected


class NeuralField(eqx.Module):
    """x_t = f(x, u), a multilayer perceptron of the normalised state."""

    network: eqx.nn.MLP
    scale: Float[Array, "field"]

    def __init__(self, scale: Array, num_ports: int, width: int, depth: int, key: PRNGKeyArray) -> None:
        size = scale.shape[0]
        self.network = eqx.nn.MLP(size + num_ports, size, width, depth, jax.nn.tanh, key=key, dtype=scale.dtype)
        self.scale = scale

    def __call__(self, state: Float[Array, "field"], inputs: Float[Array, "port"]) -> Float[Array, "field"]:
        """Rate of a state under inputs."""
        scale = jax.lax.stop_gradient(self.scale)
        return scale * self.network(jnp.concatenate([state / scale, inputs]))


class HamiltonianField(eqx.Module):
    """x_t = (J - R) grad H + G u, the energy H a multilayer perceptron of the normalised state."""

    network: eqx.nn.MLP
    scale: Float[Array, "field"]
    log_parameters: Float[Array, "parameter"]
    structure: Structure = eqx.field(static=True)

    def __init__(self, structure: Structure, scale: Array, width: int, depth: int, key: PRNGKeyArray) -> None:
        size = scale.shape[0]
        self.network = eqx.nn.MLP(size, "scalar", width, depth, jax.nn.tanh, key=key, dtype=scale.dtype)
        self.scale = scale
        self.log_parameters = jnp.full((len(structure.parameters),), jnp.log(0.03), scale.dtype)
        self.structure = structure

    def energy(self, state: Float[Array, "field"]) -> Float[Array, ""]:
        """Learned energy, up to a constant."""
        scale = jax.lax.stop_gradient(self.scale)
        return jnp.mean(scale) ** 2 * self.network(state / scale)

    def parameters(self) -> dict[str, Float[Array, ""]]:
        """Learned dissipation parameters by name."""
        return dict(zip(self.structure.parameters, jnp.exp(self.log_parameters), strict=True))

    def __call__(self, state: Float[Array, "field"], inputs: Float[Array, "port"]) -> Float[Array, "field"]:
        """Rate of a state under inputs."""
        rates = self.structure.flow(jax.grad(self.energy)(state), self.parameters())
        return rates + injected(self.structure, inputs) if self.structure.ports else rates


Field = Callable[[Array, Array], Array]


def solve_field(
    field: Field,
    state: Float[Array, "field"],
    times: Float[Array, "time"],
    inputs: Float[Array, "time port"],
    substeps: int = 2,
) -> Float[Array, "time field"]:
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
    truth, span, driven = (
        jax.lax.dynamic_slice_in_dim(array, start, window + 1) for array in (states, times, inputs)
    )
    forecast = solve_field(field, truth[0], span, driven, substeps=1)
    return jnp.mean(((forecast - truth) / scale) ** 2)
