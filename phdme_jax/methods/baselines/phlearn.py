"""An outside peer, the public package phlearn, where it is installed (`pip install -e ".[peers]"`).

It is the package of pseudo-Hamiltonian neural networks by their authors: x_t = (S - R) grad H(x) + F(x, t), the energy
a network, trained on single steps of an integrator over several frames. What it has learned is solved as the other
networks are.
Source: Eidnes, Stasik, Sterud, Bøhn, Riemer-Sørensen (2023), arXiv 2206.02660.
"""

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from phdme_jax.files import InputError
from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.methods.baselines.neural_dynamics import Field, FieldFactory
from phdme_jax.methods.baselines.windows import Learner, Observed, fit_length
from phdme_jax.systems.energy.base import Structure, injected

INSTALLED = importlib.util.find_spec("phlearn") is not None


@dataclass(frozen=True)
class PeerOptions:
    """The group `baselines.phlearn`.

    Attributes:
      strides: frames between the two states of a step, to choose from: the difference of two states grows with their
        distance, its noise does not.
      steps: of each training.
      batch: pairs of states a step.
      rate: learning rate.
      width: of the network.
    """

    strides: tuple[int, ...]
    steps: int
    batch: int
    rate: float
    width: int


def fit_phlearn(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """Train phlearn; the structure, the force, and that the momentum alone is damped are told.

    Args:
      task: of one trajectory of a driven system with one degree of freedom.
      options: the group `baselines.phlearn`, see `PeerOptions`.
      host: keeps the network.
      teacher: none.
      key: random key.
    Returns:
      the method, without a distribution; `found` holds the damping.
    Raises:
      InputError: other systems, or the package is not installed.
    """
    del teacher
    structure, group = task.problem.structure, PeerOptions(**options["baselines"]["phlearn"])
    if len(structure.fields) != 2 or len(structure.ports) != 1 or len(structure.parameters) != 1:
        raise InputError(f"phlearn learns a damped and driven position and momentum, not {structure.name}")
    if not INSTALLED:
        raise InputError('phlearn is not installed; try pip install -e ".[peers]", or leave it out of --methods')
    learner = Learner("phlearn", _factory(structure), _train, group.strides, group)
    fitted = fit_length(learner, task, host, key)
    return fitted._replace(found={structure.parameters[0]: float(fitted.params[0][0])})


@lru_cache
def _factory(structure: Structure) -> FieldFactory:
    """The learned field; parameters are the damping, then weights and biases of the three layers of the energy."""

    def energy(params: list[Array], state: Float[Array, "field"]) -> Float[Array, ""]:
        first, first_bias, second, second_bias, third, third_bias = (leaf.astype(state.dtype) for leaf in params[1:])
        hidden = jax.nn.relu(second @ jnp.tanh(first @ state + first_bias) + second_bias)
        return (third @ hidden + third_bias)[0]

    def field(params: list[Array]) -> Field:
        def rate(state: Array, inputs: Array) -> Array:
            damping = {structure.parameters[0]: params[0][0].astype(state.dtype)}
            return structure.flow(jax.grad(energy, 1)(params, state), damping) + injected(structure, inputs)

        return rate

    def init(scale: Array, key: Array) -> list[Array]:
        raise NotImplementedError("phlearn starts its networks itself")

    return FieldFactory(init, field)


def _train(stride: int, options: PeerOptions, data: Observed, key: Array) -> list[Array]:
    """Parameters after training on pairs of states that are `stride` frames apart."""
    import torch
    from phlearn.phnns import HamiltonianNN, PseudoHamiltonianNN, R_estimator, train
    from scipy.interpolate import CubicSpline

    torch.manual_seed(int(jax.random.randint(key, (), 0, 2**31 - 1)))
    driven = CubicSpline(np.asarray(data.times), np.asarray(data.inputs)[:, 0])

    def external(state: Any, instant: Any) -> Any:
        force = torch.as_tensor(driven(instant.detach().numpy()), dtype=torch.float32)
        return torch.cat([torch.zeros_like(state[:, :1]), force + torch.zeros_like(state[:, :1])], dim=1)

    model = PseudoHamiltonianNN(
        2,
        hamiltonian_est=HamiltonianNN(2, options.width),
        dissipation_est=R_estimator([False, True]),
        external_forces_true=external,
    )
    states = torch.tensor(np.asarray(data.states), dtype=torch.float32)
    times = torch.tensor(np.asarray(data.times)[:, None], dtype=torch.float32)
    begin, end = states[:-stride], states[stride:]
    step = times[stride:] - times[:-stride]
    pairs = ((begin, end, times[:-stride], times[stride:], step, torch.zeros_like(begin)), (end - begin) / step)
    epochs = max(1, options.steps * options.batch // len(begin))
    optimizer = torch.optim.Adam(model.parameters(), lr=options.rate)
    trained, _ = train(
        model, "srk4", pairs, optimizer=optimizer, epochs=epochs, batch_size=options.batch, verbose=False
    )
    leaves = [trained.R.rs, *trained.hamiltonian.parameters()]
    return [jnp.asarray(leaf.detach().numpy()) for leaf in leaves]
