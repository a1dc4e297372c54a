"""Guidance by the size of the residual: what is told, what is hidden, and the exact posterior of an exact denoiser."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.exact import ExactParams
from phdme_jax.methods.base import Examples, Task
from phdme_jax.methods.equations.diffusion import fit_diffusion, make_denoising
from phdme_jax.methods.equations.encoding import Encoding
from phdme_jax.methods.equations.network import EncodedExample, Given
from phdme_jax.methods.equations.questions import Question
from phdme_jax.methods.presets import INFORMED, equation_groups
from phdme_jax.methods.sampling.told_residual import ToldExample, fit_residual_guidance, make_loss
from phdme_jax.numerics.grid import Grid
from phdme_jax.systems.equations.base import Equations, Sample
from tests import oracles
from tests.methods.equations.world import Disturbing

SHAPE, KEY = (3, 2), jax.random.key(0)
ENCODING = Encoding(jnp.array([1.0, -2.0]), jnp.array([3.0, 0.5]))
# of the normalised fields: what the teacher draws, and the data, for which the total of each place vanishes
TEACHER = oracles.gaussian_world(SHAPE, seed=4)._replace(mean=jnp.zeros(SHAPE))
TOTAL = jnp.kron(jnp.eye(3), ENCODING.scale[None])
DATA = oracles.condition_on(TEACHER, TOTAL, jnp.full(3, 1.0), 0.0)
EQUATIONS = Equations(
    name="gaussian",
    grid=Grid((3,), (1.0,)),
    fields=("left", "right"),
    units=("1", "1"),
    residual=lambda fields, condition: {"total": jnp.sum(fields, axis=-1)},
    draw=lambda key: Sample(jnp.zeros(SHAPE), jnp.zeros((3, 0)), jnp.asarray(True)),
)
NOISE, PLACE, SEEN = 0.3, 2, 0.9  # normalised


def options(**answers):
    return {
        "data": {"kinds": ("linear", "linear")},
        "network": {"name": "exact"},
        "stages": {"diffusion": ()},
        "informed": {"mean_weight": 1.0, "sample_weight": 1.0, **INFORMED},
        **equation_groups("edm", {"sampler": "dpm", "num_steps": 100, "spacing": "log_snr"}),
        "residual_guidance": {"num_own": 256, "num_calls": 12},
        "answers": answers,
    }


def physical(normalised):
    return ENCODING.shift + ENCODING.scale * normalised


def task():
    noise = jax.random.normal(KEY, (300, 6))
    values, axes = jnp.linalg.eigh(DATA.covariance)
    fields = DATA.mean + (noise * jnp.sqrt(jnp.maximum(values, 0.0)) @ axes.T).reshape(-1, *SHAPE)
    examples = Examples(np.asarray(physical(fields)), np.zeros((300, 3, 0)))
    return Task(EQUATIONS, lambda: examples, lambda key, count: np.zeros((count, 3, 0)), KEY)


@lru_cache
def teacher():
    """A diffusion model with the exact denoiser, whose samples miss the equation."""
    found = fit_diffusion(task(), options(), Disturbing(), None, KEY)
    network = ExactParams(oracles.as_mixture(TEACHER), oracles.as_mixture(TEACHER))
    return found._replace(params=found.params._replace(network=network, fields=ENCODING))


def exact(**answers):
    """The method, its network that of a perfect training: told zero, it knows that the equation holds."""
    rule = answers.pop("rule", "sda")
    found = fit_residual_guidance(task(), options(**answers), Disturbing(), teacher(), KEY, rule=rule)
    network = ExactParams(oracles.as_mixture(TEACHER), oracles.as_mixture(DATA))
    return found._replace(params=found.params._replace(network=network))


def law_of(fitted, noise):
    mask = jnp.zeros(6).at[PLACE].set(1.0).reshape(SHAPE)
    values = physical(SEEN * mask) * mask
    question = Question(jnp.zeros((3, 0)), mask, values, noise * ENCODING.scale)

    def drawn(latent):
        asked = fitted.model.prepare(fitted.params, question)
        return (fitted.model.draw(fitted.params, asked, latent, KEY) - ENCODING.shift) / ENCODING.scale

    return oracles.affine_law(drawn, SHAPE)


def apart(law, expected):
    return [
        float(jnp.linalg.norm(found - right) / jnp.linalg.norm(right))
        for found, right in ((law.mean, expected.mean), (law.covariance, expected.covariance))
    ]


@pytest.mark.slow
def test_a_perfect_denoiser_told_zero_answers_with_the_posterior_of_equation_and_observation():
    """At a weight of one, within 1 %; a larger one is sharper than the truth."""
    expected = oracles.condition_on(DATA, jnp.eye(6)[PLACE : PLACE + 1], jnp.array([SEEN]), NOISE**2)
    one = law_of(exact(guidance=1.0, iterations=2, rule="moment_matched"), NOISE)
    assert max(apart(one, expected)) < 0.01, apart(one, expected)
    np.testing.assert_allclose(TOTAL @ one.mean.ravel(), 1.0, atol=5e-3)
    sharp = law_of(exact(guidance=2.0), 1e6)
    assert float(jnp.trace(sharp.covariance)) < 0.95 * float(jnp.trace(DATA.covariance))


@pytest.mark.slow
def test_it_is_not_corrected_whatever_others_are():
    corrected, plain = (exact(guidance=1.0, langevin_corrections=count) for count in (3, 0))
    assert corrected.model.num_calls == plain.model.num_calls
    np.testing.assert_array_equal(law_of(corrected, NOISE).mean, law_of(plain, NOISE).mean)


def told_to(host):
    """Sizes that a fit hands to its training."""
    (_, _, data, _, _) = host.asked[0]
    return np.asarray(data.size[:300]), np.asarray(data.size[300:])


def trained(residual=None):
    host = Disturbing()
    chosen = options() | {"stages": {"diffusion": ((1, 2, 4, 1e-3),)}}
    fit_residual_guidance(task(), chosen, host, teacher(), KEY, residual=residual)
    return told_to(host)


@pytest.mark.slow
def test_data_are_told_to_have_no_residual_and_own_samples_one_of_their_size():
    data, own = trained()
    assert len(own) == 256 and data.max() < 1e-5
    assert np.sqrt(np.mean(own**2)) == pytest.approx(1.0, abs=1e-5) and own.std() > 0.2


def test_a_residual_without_slopes_can_be_handed_in():
    """A learned one, say: here the share of places that are wrong by more than one, of two kinds."""

    def wrong(fields, condition):
        total = jnp.sum(fields, axis=-1)
        return jnp.stack([jnp.abs(total) > 1.0, jnp.abs(total) > 1e9], axis=-1).astype(fields.dtype)

    data, own = trained(wrong)
    assert data.max() == 0.0 and np.sqrt(np.mean(own**2)) == pytest.approx(np.sqrt(0.5), abs=1e-5)
    shares = 3 * own**2 / np.max(own**2)
    np.testing.assert_allclose(shares, np.round(shares), atol=1e-5)


def test_a_tenth_of_the_sizes_is_hidden():
    def told(network, given, size, sees):
        return lambda noisy, t: jnp.full_like(noisy, 0.0) + sees * size

    loss = make_loss(told, make_denoising({"training": {}, "informed": {}}))
    given = Given(jnp.zeros((3, 0)), jnp.zeros((3, 0)), ENCODING)
    example = ToldExample(EncodedExample(jnp.zeros(SHAPE), given), jnp.asarray(1.0))
    losses = jax.jit(jax.vmap(lambda key: loss(None, example, key)[0]))(jax.random.split(KEY, 4000))
    assert float(jnp.mean(losses == 0.0)) == pytest.approx(0.1, abs=0.02)
