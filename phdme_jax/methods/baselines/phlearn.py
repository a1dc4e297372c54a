"""Outside peers: public packages on the same data, where they are installed (`pip install -e ".[peers]"`).

phlearn is the package of pseudo-Hamiltonian neural networks by its authors: x_t = (S - R) grad H(x) + F(x, t), the
energy a network, trained on single steps of an integrator.
Source: Eidnes, Stasik, Sterud, Bøhn, Riemer-Sørensen (2023), arXiv 2206.02660.
"""

import importlib.util
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

INSTALLED = importlib.util.find_spec("phlearn") is not None


class Driven(NamedTuple):
    """One observed trajectory of a driven system with one degree of freedom, and what to forecast.

    Attributes:
      states: position and momentum, (time, 2).
      times: evenly spaced.
      force: time -> force on the momentum, for arrays.
      test_start: initial state of the undriven forecast, (2,).
      test_times: its times.
    """

    states: np.ndarray
    times: np.ndarray
    force: Callable[[Any], Any]
    test_start: np.ndarray
    test_times: np.ndarray


class PeerForecast(NamedTuple):
    """Forecast (time, 2), learned damping, seconds."""

    mean: np.ndarray
    damping: float
    seconds: float


def forecast_phlearn(problem: Driven, options: Any, seed: int) -> PeerForecast:
    """Train phlearn with the stride between the two states of a step chosen by the last fifth, and forecast.

    Steps over several frames see less of the noise, as the difference of two states grows with their distance and its
    noise does not. The structure, the force and that the momentum alone is damped are told.

    Args:
      problem: data and forecast.
      options: strides, steps, batch, rate, width.
      seed: of the initial parameters and the batches.
    Returns:
      the forecast by the model trained on all observations with the chosen stride.
    """
    began = time.perf_counter()
    cut = 4 * len(problem.times) // 5
    errors = []
    for stride in options.strides:
        model = _train(problem, cut, stride, options, seed)
        late = _simulate(model, problem.force, problem.states[cut], problem.times[cut:])
        errors.append(np.nan_to_num(np.mean((late - problem.states[cut:]) ** 2), nan=np.inf))
    model = _train(problem, len(problem.times), options.strides[int(np.argmin(errors))], options, seed)
    mean = _simulate(model, lambda t: 0.0 * t, problem.test_start, problem.test_times)
    damping = float(model.R().detach().numpy()[1, 1])
    return PeerForecast(mean, damping, time.perf_counter() - began)


def _forces(torch: Any, force: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def external(state: Any, instant: Any) -> Any:
        return torch.cat([torch.zeros_like(state[:, :1]), force(instant) + torch.zeros_like(state[:, :1])], dim=1)

    return external


def _train(problem: Driven, frames: int, stride: int, options: Any, seed: int) -> Any:
    import torch
    from phlearn.phnns import HamiltonianNN, PseudoHamiltonianNN, R_estimator, train

    torch.manual_seed(seed)

    def force(instant: Any) -> Any:
        return torch.as_tensor(problem.force(instant.detach().numpy()), dtype=torch.float32)

    model = PseudoHamiltonianNN(
        2, hamiltonian_est=HamiltonianNN(2, options.width), dissipation_est=R_estimator([False, True]),
        external_forces_true=_forces(torch, force),
    )  # fmt: skip
    states = torch.tensor(problem.states[:frames], dtype=torch.float32)
    times = torch.tensor(problem.times[:frames, None], dtype=torch.float32)
    begin, end = states[:-stride], states[stride:]
    step = times[stride:] - times[:-stride]
    data = ((begin, end, times[:-stride], times[stride:], step, torch.zeros_like(begin)), (end - begin) / step)
    epochs = max(1, options.steps * options.batch // len(begin))
    optimizer = torch.optim.Adam(model.parameters(), lr=options.rate)
    trained, _ = train(model, "srk4", data, optimizer=optimizer, epochs=epochs, batch_size=options.batch, verbose=False)
    return trained


def _simulate(model: Any, force: Callable[[Any], Any], start: np.ndarray, times: np.ndarray) -> np.ndarray:
    import torch

    def acting(instant: Any) -> Any:
        return torch.as_tensor(force(instant.detach().numpy()), dtype=torch.float32)

    model.external_forces = _forces(torch, acting)
    found, _ = model.simulate_trajectory(False, times, x0=torch.tensor(start[None], dtype=torch.float32))
    return np.asarray(found, float)
