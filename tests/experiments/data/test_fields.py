"""What is observed: noise of the size asked for, at the sites asked for, waves between them exact."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data import fields
from experiments.data.fields import measured
from phdme_jax.numerics.resampling import resample
from phdme_jax.systems import make_system

PARITY = ((-1,), (1,))


def waves():
    """Three waves that nine sites resolve, (sample, time, grid, field)."""
    x = np.linspace(0.0, np.pi, 33)
    amplitude = np.random.default_rng(0).normal(size=(3, 20, 1, 3))
    sines = sum(amplitude[..., k] * np.sin((k + 1) * x) for k in range(3))
    cosines = sum(amplitude[..., k] * np.cos(k * x) for k in range(3))
    return np.stack([sines, cosines], axis=-1)


def observe(noise, sites):
    return measured(waves(), PARITY, SimpleNamespace(noise=noise, num_sites=sites), jax.random.key(1))


def test_without_noise_resolved_waves_are_exact_from_all_points_and_from_few():
    np.testing.assert_array_equal(observe(0.0, 0), waves())
    np.testing.assert_allclose(observe(0.0, 9), waves(), atol=1e-12)


def test_noise_has_the_size_asked_for_in_units_of_each_field():
    error = observe(0.05, 0) - waves()
    expected = 0.05 * waves().std(axis=(0, 1, 2))
    np.testing.assert_allclose(error.std(axis=(0, 1, 2)), expected, rtol=0.05)


def test_noise_is_drawn_at_the_sites_and_interpolated_between_them():
    error = observe(0.05, 9) - waves()
    at_sites = error[:, :, ::4]
    # the ends of an odd field are known to be zero
    np.testing.assert_allclose(at_sites[..., [0, -1], 0], 0.0, atol=1e-12)
    expected = 0.05 * waves().std(axis=(0, 1, 2))
    assert at_sites[:, :, 1:-1, 0].std() == pytest.approx(expected[0], rel=0.1)
    assert at_sites[..., 1].std() == pytest.approx(expected[1], rel=0.1)
    again = jax.vmap(jax.vmap(lambda x: resample(x, PARITY, 33)))(at_sites)
    np.testing.assert_allclose(again, error, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_reference_solutions_follow_the_keys(monkeypatch, backend):
    """A CPU solves one after the other on its threads, an accelerator many side by side."""
    fine, times = make_system("vibrating_string", num_points=33, order=6), (0.0, 0.5, 2.0)

    def decay(field, state, times, values, **tolerances):
        return jnp.exp(-times)[:, None, None] * state, state[16, 1] > -10.0

    monkeypatch.setattr(fields, "solve_reference", decay)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    keys = jax.random.split(jax.random.key(0), 11)
    starts = np.stack([fine.structure.constrain(fine.initial_state("random_smooth")(key)) for key in keys])
    solved = fields.reference_trajectories(fine, "random_smooth", times, 2, keys)
    np.testing.assert_allclose(solved, np.exp(-np.array(times))[:, None, None] * starts[:, None, ::2], rtol=1e-12)
