"""The outside peer on clean data, where it is installed (`pip install -e ".[peers]"`)."""

import jax
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from phdme_jax.files import InputError
from phdme_jax.methods.base import Examples, Start, Task
from phdme_jax.methods.baselines import phlearn as peers
from phdme_jax.methods.draws import draw_forecasts
from phdme_jax.systems.energy.base import System
from phdme_jax.systems.energy.oscillators import oscillator_structure
from phdme_jax.training.stages import Trainer

OPTIONS = {"baselines": {"phlearn": {"strides": (1, 3), "steps": 2000, "batch": 64, "rate": 3e-3, "width": 32}}}


def motion(times, start, force):
    def rate(time, state):
        return [state[1], -state[0] - 0.2 * state[1] + force * np.sin(0.5 * time)]

    return solve_ivp(rate, (0, times[-1]), start, t_eval=times, rtol=1e-9).y.T


def task(structure):
    times, later = np.linspace(0, 20, 201), np.linspace(0, 10, 101)
    start = Start(np.array([[2.0, 0.0]]), 0.5 * np.sin(0.5 * times)[None, :, None])
    train = Examples(motion(times, [2.0, 0.0], 0.5)[None], start, tuple(times.tolist()))
    return Task(System(structure), lambda: train, lambda key, count: None, jax.random.key(0), tuple(later.tolist()))


@pytest.mark.filterwarnings("default")  # of PyTorch about the package's own calls
@pytest.mark.skipif(not peers.INSTALLED, reason="phlearn is not installed")
def test_phlearn_learns_a_damped_driven_spring():
    driven = task(oscillator_structure(driven=True))
    fitted = peers.fit_phlearn(driven, OPTIONS, Trainer(), None, jax.random.key(0))
    assert fitted.found["viscous_damping"] == pytest.approx(0.2, abs=0.05)
    truth = motion(np.asarray(driven.times), [1.0, 1.0], 0.0)
    found = draw_forecasts(fitted, Start(truth[:1], np.zeros((1, 101, 1))), 1, jax.random.key(0))
    assert np.mean((found.mean[0] - truth) ** 2) < 0.02 * truth.var()


def test_other_systems_are_refused():
    with pytest.raises(InputError, match="not mass_spring"):
        peers.fit_phlearn(task(oscillator_structure()), OPTIONS, Trainer(), None, jax.random.key(0))
