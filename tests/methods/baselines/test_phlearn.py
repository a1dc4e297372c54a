"""The outside peer on clean data, where it is installed (`pip install -e ".[peers]"`)."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from phdme_jax.methods.baselines import phlearn as peers


@pytest.mark.filterwarnings("default")  # of PyTorch about the package's own calls
@pytest.mark.skipif(not peers.INSTALLED, reason="phlearn is not installed")
def test_phlearn_learns_a_damped_driven_spring():
    def rate(time, state, force):
        return [state[1], -state[0] - 0.2 * state[1] + force * np.sin(0.5 * time)]

    times, later = np.linspace(0, 20, 201), np.linspace(0, 10, 101)
    observed = solve_ivp(rate, (0, 20), [2.0, 0.0], t_eval=times, args=(0.5,), rtol=1e-9).y.T
    truth = solve_ivp(rate, (0, 10), [1.0, 1.0], t_eval=later, args=(0.0,), rtol=1e-9).y.T
    problem = peers.Driven(observed, times, lambda t: 0.5 * np.sin(0.5 * t), np.array([1.0, 1.0]), later)
    options = SimpleNamespace(strides=(1, 3), steps=2000, batch=64, rate=3e-3, width=32)
    found = peers.forecast_phlearn(problem, options, 0)
    assert found.damping == pytest.approx(0.2, abs=0.05)
    assert np.mean((found.mean - truth) ** 2) < 0.02 * truth.var()
