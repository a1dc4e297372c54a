"""Generators: the scale that is told from a mean is the one that its samples have; what a recipe trains on and asks."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.networks import Network
from phdme_jax.files import InputError
from phdme_jax.methods.base import Examples, Fitted, Start, Task, fit_normaliser
from phdme_jax.methods.draws import samples
from phdme_jax.methods.energy import training
from phdme_jax.methods.energy.conditional import Design, Fields, GeneratorParams, make_model, scale_of
from phdme_jax.methods.energy.dynamics import rollout_model, true_dynamics
from phdme_jax.methods.energy.generator import make_fit
from phdme_jax.methods.energy.losses import Around, Example
from phdme_jax.methods.energy.options import SCHEDULE, read_options
from phdme_jax.methods.energy.rollouts import changed_weights
from phdme_jax.methods.energy.spread import init_spread
from phdme_jax.systems import make_system
from phdme_jax.systems.energy.base import System
from phdme_jax.systems.energy.oscillators import oscillator_structure

UNET = {"channels": 8, "multipliers": (1, 2), "num_blocks": 1, "embedding_size": 16, "heads": 0}
STRUCTURE, TIMES = oscillator_structure("free"), tuple(np.linspace(0.0, 1.0, 16).tolist())
OPTIONS = {
    "network": {
        "unet": UNET,
        "propagator": {"radius": 0, "width": 8, "depth": 1, "gated": True},
        "observed_propagator": {"gated": False},
        "prediction": "x0",
    },
    "training": {
        "ema_decay": 0.9,
        "propagator_stages": ((1, 2, 2, 1e-3),),
        "observed_stages": ((4, 2, 2, 1e-3), (40, 3, 2, 1e-3), (15, 5, 2, 1e-3)),
        "residual_stage": (2, 2, 1e-3),
    },
    "physics": {"residual_weight": 0.1, "boundary_weight": 0.0, "residual_target": "trajectory"},
    "sampling": {"num_steps": 3},
}


def around_means(means, factor=1.0):
    """A generator around given means with the exact denoiser of standard normal remainders, times a factor."""
    exact = Network(
        init=lambda key, noisy, condition: {},
        encode=lambda params, condition: {},
        apply=lambda params, noisy, t, features: factor * SCHEDULE.alpha_sigma(t)[0] * noisy,
    )
    scale = jnp.full((16, 2), 0.1, jnp.float32)
    params = GeneratorParams(fit_normaliser(jnp.asarray(means), STRUCTURE), scale, jnp.ones_like(scale), denoiser={})
    return Design(Fields(STRUCTURE), TIMES, TIMES, None, exact, 24), params


def drawn(design, params, means, count, key):
    """Normalised samples around normalised means."""
    scales = jax.vmap(lambda mean: scale_of(params, mean) * params.amplitude)(jnp.asarray(means))
    found = samples(Fitted(make_model(design), params, {}), Around(jnp.asarray(means), scales), count, key)
    return found / np.asarray(params.normaliser.scale)


def test_samples_are_spread_by_the_scale_told_from_their_own_mean():
    means = np.random.default_rng(0).standard_normal((3, 16, 2)).astype(np.float32)
    means *= np.array([1.0, 3.0, 9.0], np.float32)[:, None, None]
    design, plain = around_means(means)
    means = means / np.asarray(plain.normaliser.scale)
    # g is no longer zero: larger means are told to leave more
    spread = jax.tree.map(lambda leaf: leaf + 0.05, init_spread(jnp.asarray(means[0]), jax.random.key(2)))
    told = plain._replace(spread=spread)

    def remainders(params):
        return (drawn(design, params, means, 4, jax.random.key(3)) - means[:, None])[:, :, 1:]

    expected = np.asarray(jax.vmap(lambda mean: scale_of(told, mean))(means))[:, None, 1:] / 0.1
    assert expected.min() > 1.01 and expected.std() > 0.01
    # the denoiser knows nothing of the mean: the same draws, in another scale
    assert remainders(plain).std() > 0.05
    np.testing.assert_allclose(remainders(told), remainders(plain) * expected, rtol=2e-3, atol=1e-5)


@pytest.mark.slow
def test_samples_of_a_denoiser_that_shrinks_are_stretched_to_the_size_of_what_the_mean_leaves():
    randomness = np.random.default_rng(1)
    means = randomness.standard_normal((64, 16, 2)).astype(np.float32)
    left = randomness.standard_normal((64, 16, 2)).astype(np.float32) * np.array([0.1, 0.05], np.float32)
    left[:, 0] = 0.0
    example = Example(*(jnp.asarray(part) for part in (means + left, np.ones((64, 15, 2), np.float32), means)))

    def sizes(design, params):
        return (drawn(design, params, means, 8, jax.random.key(4)) - means[:, None]).std(axis=(0, 1))

    design, spoiled = around_means(means, 0.85)
    assert sizes(design, spoiled)[1:, 0].max() < 0.08
    stretched, notes = training.with_amplitude(design, spoiled, example, 256)
    assert stretched.amplitude.shape == (16, 2) and notes == ()
    found = sizes(design, stretched)
    np.testing.assert_allclose(found[1:].mean(axis=0), [0.1, 0.05], rtol=0.04)
    np.testing.assert_allclose(found[1:], np.broadcast_to([0.1, 0.05], (15, 2)), rtol=0.35)
    np.testing.assert_allclose(found[0], 0.0, atol=1e-6)
    # measured again, or with another number of calls, the size is the same
    again = stretched
    for steps in (24, 6):
        design = replace(design, num_steps=steps)
        again, _ = training.with_amplitude(design, again, example, 256)
        np.testing.assert_allclose(sizes(design, again)[1:].mean(axis=0), [0.1, 0.05], rtol=0.04)
    # an exact one is left as it is
    design, exact = around_means(means)
    amplitude = training.with_amplitude(design, exact, example, 256)[0].amplitude
    np.testing.assert_allclose(np.asarray(amplitude)[1:].mean(axis=0), [1.0, 0.5], rtol=0.04)
    # what is known is not drawn, however far the mean is from the training trajectories there
    design = replace(design, fields=Fields(STRUCTURE, companions=1))
    far = example._replace(state=example.state.at[..., 1].add(5.0))
    held, notes = training.with_amplitude(design, exact, far, 256)
    np.testing.assert_array_equal(np.asarray(held.amplitude)[:, 1], 1.0)
    assert notes == ()


def test_a_size_that_is_out_of_reach_is_told():
    means = np.zeros((8, 16, 2), np.float32)
    left = np.random.default_rng(1).standard_normal((8, 16, 2)).astype(np.float32)
    left[:, 0] = 0.0
    example = Example(*(jnp.asarray(part) for part in (left, np.ones((8, 15, 2), np.float32), means)))
    design, params = around_means(np.ones_like(means))
    limited, notes = training.with_amplitude(design, params, example, 64)
    np.testing.assert_array_equal(np.asarray(limited.amplitude)[1:], 3.0)
    assert len(notes) == 1 and "residual_stage" in notes[0]


class Recorder:
    """A host that trains nothing."""

    def __init__(self):
        self.stages = {}

    def train(self, stage, loss, params, data, key, **numbers):
        self.stages[stage] = numbers
        return params, 1.0

    def keep(self, name, make):
        raise AssertionError("nothing is rolled out for what is trained on observed trajectories")


def observed_task(structure=STRUCTURE):
    fields = np.random.default_rng(0).standard_normal((3, 16, 2))
    train = Examples(fields, Start(fields[:, 0], np.zeros((3, 16, len(structure.ports)))), TIMES)
    return Task(System(structure), lambda: train, lambda key, count: None, jax.random.key(0), TIMES)


@pytest.mark.parametrize("physics", [False, True])
def test_what_is_trained_on_observed_trajectories_has_its_own_step_and_target(physics, monkeypatch):
    terms = []

    def record(*arguments, original=training.physics_terms):
        terms.append(original(*arguments))
        return terms[-1]

    monkeypatch.setattr(training, "physics_terms", record)
    system = make_system("mass_spring", damping=0.1)
    truth = Fitted(rollout_model(true_dynamics(system, 1), TIMES, 2), (), {"fit": 2.0}) if physics else None
    host = Recorder()
    fitted = make_fit(data="observed", physics=physics)(observed_task(), OPTIONS, host, truth, jax.random.key(1))
    # windows longer than a trajectory are cut, and none trains twice
    assert list(host.stages) == ["mean_4", "mean_15", "residual"]
    assert host.stages["mean_15"]["steps"] == 3
    assert host.stages["mean_4"]["matrix_steps"] and not host.stages["residual"]["matrix_steps"]
    assert terms[0].target == "zero" and (terms[0].rate is None) == (not physics)
    # a gated step has one more matrix a layer
    assert len(jax.tree.leaves(fitted.params.propagator)) == 5
    assert fitted.seconds == {"mean_4": 1.0, "mean_15": 1.0, "residual": 1.0, **({"fit": 2.0} if physics else {})}


def test_misfits_are_refused_in_one_sentence():
    host, key = Recorder(), jax.random.key(0)
    with pytest.raises(InputError, match="expected a teacher"):
        make_fit()(observed_task(), OPTIONS, host, None, key)
    driven = observed_task(oscillator_structure("driven", driven=True))
    with pytest.raises(InputError, match="does not see the inputs"):
        make_fit(data="observed", physics=False)(driven, OPTIONS, host, None, key)
    other = replace(observed_task(), times=(0.0, 0.5, 1.0))
    with pytest.raises(InputError, match="expected observed trajectories at the 3 times"):
        make_fit(data="observed", physics=False)(other, OPTIONS, host, None, key)


@pytest.mark.parametrize(
    ("group", "change", "error", "words"),
    [
        ("training", {"residual_stages": ()}, TypeError, "residual_stages"),
        ("training", {"ema_decay": 1.0}, ValueError, "ema_decay"),
        ("training", {"real_fraction": 0.2}, ValueError, "real_fraction=0"),
        ("physics", {"residual_target": "none"}, ValueError, "residual_target among"),
        ("physics", {"weights": "even"}, ValueError, "weights among"),
        ("network", {"prediction": "noise"}, ValueError, "mode among"),
    ],
)
def test_options_that_cannot_be_are_refused(group, change, error, words):
    with pytest.raises(error, match=words):
        read_options({**OPTIONS, group: {**OPTIONS[group], **change}})
    assert read_options(OPTIONS).network.make_denoiser() == read_options(OPTIONS).network.make_denoiser()


def test_changed_weights_are_even_or_moved():
    weights = np.random.default_rng(0).uniform(size=(3, 5, 4, 2)).astype(np.float32)
    key = jax.random.key(0)
    assert changed_weights(weights, "uncertainty", key) is weights
    even, moved = changed_weights(weights, "off", key), changed_weights(weights, "shuffled", key)
    np.testing.assert_allclose(even, np.broadcast_to(weights.mean(axis=(0, 1, 2)), weights.shape), rtol=1e-6)
    # both fields of a place move together
    assert not np.array_equal(moved, weights)
    assert set(map(tuple, moved.reshape(-1, 2))) == set(map(tuple, weights.reshape(-1, 2)))
