"""Samples around given means: the scale that is told from a mean is the one that its samples have."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.networks import Network
from phdme_jax.methods.base import fit_normaliser
from phdme_jax.methods.energy import generator as generators
from phdme_jax.methods.energy.losses import Example
from phdme_jax.methods.energy.spread import init_spread
from phdme_jax.methods.legacy import make_method
from phdme_jax.systems.energy.oscillators import oscillator_structure

UNET = {"channels": 8, "multipliers": (1, 2), "num_blocks": 1, "embedding_size": 16, "heads": 0}
STRUCTURE, TIMES = oscillator_structure("driven", driven=True), tuple(np.linspace(0.0, 1.0, 16).tolist())


def around_means(means, factor=1.0):
    """A generator around given means with the exact denoiser of standard normal remainders, times a factor."""
    network = {"unet": UNET, "propagator": {"radius": 0, "width": 8, "depth": 1}, "prediction": "x0"}
    dynamics = generators.Dynamics(lambda state: state, lambda initial: initial)
    generator = generators.make_generator(
        make_method("phdme_rollout"), None, STRUCTURE, TIMES, network, {"num_steps": 24}, dynamics
    )
    schedule = generator.schedule
    exact = Network(
        init=lambda key, noisy, condition: {},
        encode=lambda params, condition: {},
        apply=lambda params, noisy, t, features: factor * schedule.alpha_sigma(t)[0] * noisy,
    )
    return generators.with_arrays(
        dataclasses.replace(generator, denoiser=exact), normaliser=fit_normaliser(jnp.asarray(means)),
        scale=jnp.full((16, 2), 0.1, jnp.float32), denoiser={},
    )  # fmt: skip


def test_samples_are_spread_by_the_scale_told_from_their_own_mean():
    means = np.random.default_rng(0).standard_normal((3, 16, 2)).astype(np.float32)
    means *= np.array([1.0, 3.0, 9.0], np.float32)[:, None, None]
    spread = init_spread(jnp.asarray(means[0]), jax.random.key(2))
    plain = around_means(means)
    # g is no longer zero: larger means are told to leave more
    told = jax.tree.map(lambda leaf: leaf + 0.05, spread)
    told = generators.with_arrays(plain, spread=told)
    known = generators.known_values(STRUCTURE, TIMES)
    scale = np.asarray(plain.arrays["normaliser"].scale)

    def remainders(which):
        samples = generators.sample_around(which, known, means, 4, jax.random.key(3))
        return (samples - means[:, None])[:, :, 1:] / scale

    expected = np.asarray(generators._scales(told, means / scale))[:, None, 1:] / 0.1
    assert expected.min() > 1.01 and expected.std() > 0.01
    # the denoiser knows nothing of the mean: the same draws, in another scale
    assert remainders(plain).std() > 0.05
    np.testing.assert_allclose(remainders(told), remainders(plain) * expected, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize(("name", "gated", "target"), [("phdme", True, "trajectory"), ("diffusion", False, "zero")])
def test_what_is_trained_on_observed_trajectories_has_its_own_step_and_target(name, gated, target, monkeypatch):
    propagator = {"radius": 0, "width": 8, "depth": 1, "gated": True}
    network = {
        "unet": UNET, "propagator": propagator, "observed_propagator": {"gated": False}, "prediction": "x0"
    }  # fmt: skip
    generator = generators.make_generator(make_method(name), None, STRUCTURE, TIMES, network, {"num_steps": 3})
    assert generator.propagator.gated == gated and generator.propagator.width == 8

    class Asked(Exception):
        pass

    def ask(dynamics, structure, normaliser, physics):
        raise Asked(physics["residual_target"])

    monkeypatch.setattr(generators, "physics_terms", ask)
    means = np.ones((2, 16, 2), np.float32)
    with pytest.raises(Asked, match=target):
        generators.train_generator(
            generator, STRUCTURE, Example(means, means[:, 1:], means), None, fit_normaliser(jnp.asarray(means)),
            training={}, physics={"residual_target": "trajectory"}, key=jax.random.key(0), digest="", workdir=None,
        )  # fmt: skip


def test_samples_of_a_denoiser_that_shrinks_are_stretched_to_the_size_of_what_the_mean_leaves(capsys):
    randomness = np.random.default_rng(1)
    means = randomness.standard_normal((64, 16, 2)).astype(np.float32)
    left = randomness.standard_normal((64, 16, 2)).astype(np.float32) * np.array([0.1, 0.05], np.float32)
    left[:, 0] = 0.0
    example = Example(means + left, np.ones((64, 15, 2), np.float32), means)
    known = generators.known_values(STRUCTURE, TIMES)

    def sizes(generator):
        drawn = generators._sample(generator, known, means, 8, jax.random.key(4))
        return (drawn - means[:, None]).std(axis=(0, 1))

    spoiled = around_means(means, 0.85)
    assert sizes(spoiled)[1:, 0].max() < 0.08
    amplitude = generators.measured_amplitude(spoiled, known, example, 256, jax.random.key(5))
    assert amplitude.shape == (16, 2)
    stretched = sizes(generators.with_arrays(spoiled, amplitude=amplitude))
    np.testing.assert_allclose(stretched[1:].mean(axis=0), [0.1, 0.05], rtol=0.04)
    np.testing.assert_allclose(stretched[1:], np.broadcast_to([0.1, 0.05], (15, 2)), rtol=0.35)
    np.testing.assert_array_equal(stretched[0], 0.0)
    # measured again, or with another number of calls, the size is the same
    again = dataclasses.replace(spoiled, measured_on=example)
    for steps in (24, 24, 6):
        again = generators.with_sampler_steps(again, steps, known, 256)
        np.testing.assert_allclose(sizes(again)[1:].mean(axis=0), [0.1, 0.05], rtol=0.04)
    # an exact one is left as it is
    exact = generators.measured_amplitude(around_means(means), known, example, 256, jax.random.key(5))
    np.testing.assert_allclose(np.asarray(exact)[1:].mean(axis=0), [1.0, 0.5], rtol=0.04)
    capsys.readouterr()
    # what is known is not drawn, however far the mean is from the training trajectories there
    held = known.copy()
    held[:, 1] = 1.0
    partly = generators.measured_amplitude(around_means(means), held, example, 256, jax.random.key(5))
    np.testing.assert_array_equal(np.asarray(partly)[:, 1], 1.0)
    assert "too alike" not in capsys.readouterr().out
