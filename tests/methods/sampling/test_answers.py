"""Answers of exact teachers in a Gaussian world, where the posterior is known in closed form."""

import dataclasses
import sys
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.exact import ExactParams
from phdme_jax.methods.base import Examples, Fitted, Task
from phdme_jax.methods.equations import network as shared
from phdme_jax.methods.equations.encoding import Encoding
from phdme_jax.methods.equations.flow import make_model
from phdme_jax.methods.equations.questions import Question
from phdme_jax.methods.presets import INFORMED, MLP, equation_groups
from phdme_jax.methods.sampling.guided import fit_guided
from phdme_jax.methods.table import METHODS
from phdme_jax.numerics.grid import Grid
from phdme_jax.systems.equations.base import Equations, Sample
from phdme_jax.training.stages import Trainer
from tests import oracles
from tests.methods.sampling.teachers import exact_diffusion

SHAPE, KEY = (4, 2), jax.random.key(0)
# of the normalised fields
WORLD = oracles.gaussian_world(SHAPE, seed=4)._replace(mean=jnp.zeros(SHAPE))
ENCODING = Encoding(jnp.array([1.0, -2.0]), jnp.array([3.0, 0.5]))
NOISE = 0.2  # normalised
MASK = jnp.zeros(SHAPE).at[0, 0].set(1.0).at[2, 0].set(1.0).at[3, 1].set(1.0)
SEEN = jnp.array([0.7, -1.1, 0.4])
EQUATIONS = Equations(
    name="gaussian",
    grid=Grid((4,), (1.0,)),
    fields=("left", "right"),
    units=("1", "1"),
    residual=lambda fields, condition: {"sum": jnp.sum(fields, axis=-1)},
    draw=lambda key: Sample(jnp.zeros(SHAPE), jnp.zeros((4, 0)), jnp.asarray(True)),
    published=lambda fields, condition: {"difference": fields[..., 0] - fields[..., 1]},
)


def options(sampling=None, **answers):
    groups = {
        "data": {"kinds": ("linear", "linear")},
        "network": MLP,
        "informed": {"mean_weight": 1.0, "sample_weight": 1.0, **INFORMED},
        **equation_groups("edm", {"sampler": "dpm", "num_steps": 60, **(sampling or {})}),
    }
    return {**groups, "answers": answers}


def task():
    fields = np.asarray(ENCODING.shift + ENCODING.scale * oracles.draw(WORLD, 4000, KEY))
    examples = Examples(fields, np.zeros((len(fields), 4, 0)))
    return Task(EQUATIONS, lambda: examples, lambda key, count: examples.condition[:count], KEY)


def world_of(variance):
    """The world of this file where zero, else one whose entries know nothing of each other."""
    return WORLD._replace(covariance=variance * jnp.eye(8)) if variance else WORLD


@lru_cache
def teacher(variance=0.0):
    """A diffusion model whose denoiser is the exact one."""
    net = shared.EquationNetwork(EQUATIONS, shared.make_network(SHAPE, **MLP), ("linear",) * 2, SHAPE, "float64")
    given = Encoding(jnp.zeros(0), jnp.ones(0))
    params = shared.Params(None, ENCODING, given)
    return exact_diffusion(net, world_of(variance), params)


def question(noise=NOISE):
    places = jnp.argwhere(MASK > 0, size=3)
    values = jnp.zeros(SHAPE).at[places[:, 0], places[:, 1]].set(SEEN)
    physical = MASK * (ENCODING.shift + ENCODING.scale * values)
    return Question(jnp.zeros((4, 0)), MASK, physical, noise * ENCODING.scale)


OPERATOR = jnp.eye(8)[jnp.flatnonzero(MASK.ravel(), size=3)]
POSTERIOR = oracles.condition_on(WORLD, OPERATOR, SEEN, NOISE**2)


def law_of(method, variance=0.0, **answers):
    """Law of the answers, in normalised units; methods are affine in the noise but for their searches."""
    entry = METHODS[method]
    fitted = entry.fit(task(), options(**answers), Trainer(), teacher(variance), KEY)

    def drawn(noise):
        asked = fitted.model.prepare(fitted.params, question())
        return (fitted.model.draw(fitted.params, asked, noise, KEY) - ENCODING.shift) / ENCODING.scale

    return oracles.affine_law(drawn, SHAPE)


def missed(law, posterior):
    """Errors of mean and covariance, in units of the prior's deviation and variance."""
    return float(jnp.abs(law.mean - posterior.mean).max()), float(jnp.abs(law.covariance - posterior.covariance).max())


def test_matched_moments_answer_with_the_posterior():
    mean, covariance = missed(law_of("moment_matched", iterations=3), POSTERIOR)
    assert mean < 0.01 and covariance < 0.02
    # one iteration is a step down, not the solution
    assert missed(law_of("moment_matched", iterations=1), POSTERIOR)[0] > 0.03


def test_levels_are_spaced_as_the_teacher_is_told():
    even = missed(law_of("moment_matched", iterations=3, sampling={"spacing": "log_snr"}), POSTERIOR)
    assert even != missed(law_of("moment_matched", iterations=3), POSTERIOR) and max(even) < 0.02


def test_guidance_by_one_variance_is_near_and_pushes_of_one_length_are_not():
    """Bias of guidance in a world of correlated entries, against that of no guidance at all."""
    none = missed(law_of("sda", gamma=1e12), POSTERIOR)
    best = missed(law_of("sda", gamma=1.0), POSTERIOR)
    assert best[0] < 0.6 * none[0] and best[1] < 0.3 * none[1], (best, none)
    assert best[0] > 0.1, "of a covariance that is not white it is biased"


@pytest.mark.slow
@pytest.mark.parametrize("variance", [0.25, 4.0])
def test_guidance_by_one_variance_is_exact_where_entries_are_independent(variance):
    """Of data of variance b, that of an example given a noisy one is r^2 b / (b + r^2)."""
    posterior = oracles.condition_on(world_of(variance), OPERATOR, SEEN, NOISE**2)
    exact = missed(law_of("sda", variance, variance_bound=variance), posterior)
    other = missed(law_of("sda", variance, variance_bound=1.0), posterior)
    assert max(exact) < 0.01 * max(variance, 1.0) and max(other) > 2.0 * max(exact), (exact, other)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["sda", "moment_matched"])
def test_langevin_corrections_repair_guidance_that_few_steps_follow(rule):
    """Where guidance is exact only at the end, each level is drawn anew by what it says; what is exact stays so."""
    products = 1 if rule == "sda" else 2
    levels = 15 if rule == "sda" else 20

    def errors(**corrected):
        sampling = {"num_steps": 20, "spacing": "log_snr"}
        chosen = options(sampling, variance_bound=0.0, iterations=products, **corrected)
        fitted = METHODS[rule].fit(task(), chosen, Trainer(), teacher(), KEY)

        @jax.jit
        @jax.vmap
        def drawn(key):
            asked = fitted.model.prepare(fitted.params, question())
            fields = fitted.model.draw(fitted.params, asked, jax.random.normal(key, SHAPE), jax.random.fold_in(key, 1))
            return ((fields - ENCODING.shift) / ENCODING.scale).ravel()

        answers = drawn(jax.random.split(KEY, 3000))
        law = oracles.GaussianWorld(jnp.mean(answers, axis=0).reshape(SHAPE), jnp.cov(answers.T))
        return fitted.model, missed(law, POSTERIOR)

    _, plain = errors()
    model, corrected = errors(langevin_corrections=40, langevin_step=0.2, pushed_steps=15)
    calls = levels + (levels - 1) * 40
    assert (model.num_calls, model.num_backward) == (calls, calls * products)
    if rule == "sda":
        assert corrected[0] < 0.5 * plain[0] and corrected[1] < 0.5 * plain[1], (plain, corrected)
    else:  # right before, but for its few steps and 3,000 draws
        assert max(corrected) < 0.06, corrected


@pytest.mark.slow
def test_no_bound_is_a_bound_beyond_all_noise():
    free, far = (law_of("sda", variance_bound=bound) for bound in (0.0, 1e12))
    np.testing.assert_allclose(free.mean, far.mean, rtol=1e-6)
    np.testing.assert_allclose(free.covariance, far.covariance, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "push"), [("dps", 0.2), ("diffusionpde", 1.0)])
def test_pushes_bring_the_mean_to_the_observations(method, push):
    answers = {"push": push, "observation_push": push, "residual_push": 0.0}
    seen = OPERATOR @ law_of(method, **answers).mean.ravel()
    np.testing.assert_allclose(seen, SEEN, atol=0.3)
    untouched = OPERATOR @ law_of(method, push=0.0, observation_push=0.0, residual_push=0.0).mean.ravel()
    np.testing.assert_allclose(untouched, 0.0, atol=1e-6)


@pytest.mark.slow
def test_steps_of_pushes_are_their_own():
    for method, calls in (("dps", 7), ("diffusionpde", 13), ("sda", 60)):
        fitted = METHODS[method].fit(task(), options(pushed_steps=7), Trainer(), teacher(), KEY)
        assert fitted.model.num_calls == calls
    for method in ("dps", "diffusionpde"):
        few, same = law_of(method, pushed_steps=7), law_of(method, sampling={"num_steps": 7})
        np.testing.assert_allclose(few.mean, same.mean, atol=1e-9)


@pytest.mark.slow
def test_a_residual_pushes_the_end_of_a_sampler():
    free, pushed = (law_of("diffusionpde", observation_push=0.0, residual_push=push).covariance for push in (0.0, 0.02))
    total = ENCODING.scale / jnp.linalg.norm(ENCODING.scale)
    along = jnp.kron(jnp.eye(4), total[None])
    before, after = (float(jnp.trace(along @ covariance @ along.T)) for covariance in (free, pushed))
    assert after < 0.95 * before
    # that of published code pushes where it is asked for
    changes = {"observation_push": 0.0, "residual_push": 0.02, "published_residual": True}
    other = jnp.kron(jnp.eye(4), (ENCODING.scale * jnp.array([1.0, -1.0]) / jnp.linalg.norm(ENCODING.scale))[None])
    ends = [part @ law_of("diffusionpde", **changes).covariance @ part.T for part in (along, other)]
    ratios = [
        float(jnp.trace(end) / jnp.trace(part @ free @ part.T)) for end, part in zip(ends, (along, other), strict=True)
    ]
    assert ratios[1] < 0.95 and ratios[1] < ratios[0]


def test_samples_are_pushed_down_the_residual_as_answers_without_a_push_by_observations_are():
    fitted = METHODS["residual_pushed"].fit(task(), options(residual_push=0.02), Trainer(), teacher(), KEY)
    prepared = fitted.model.prepare(fitted.params, question().condition)
    free = oracles.affine_law(
        lambda noise: (fitted.model.draw(fitted.params, prepared, noise, KEY) - ENCODING.shift) / ENCODING.scale, SHAPE
    )
    law = law_of("diffusionpde", observation_push=0.0, residual_push=0.02)
    np.testing.assert_allclose(free.mean, law.mean, atol=1e-9)
    np.testing.assert_allclose(free.covariance, law.covariance, atol=1e-9)
    assert fitted.model.num_calls == 119 and fitted.model.num_backward == 118


def test_kriging_answers_with_the_posterior_of_the_moments():
    fitted = METHODS["kriging"].fit(task(), options(), Trainer(), None, KEY)
    model = fitted.model

    @jax.jit
    @jax.vmap
    def drawn(key):
        asked = model.prepare(fitted.params, question())
        fields = model.draw(fitted.params, asked, model.latent(key), key)
        return ((fields - ENCODING.shift) / ENCODING.scale).ravel()

    answers = drawn(jax.random.split(KEY, 8000))
    law = oracles.GaussianWorld(jnp.mean(answers, axis=0).reshape(SHAPE), jnp.cov(answers.T))
    assert max(missed(law, POSTERIOR)) < 0.08  # moments of 4,000 examples


@pytest.mark.slow
def test_a_search_without_a_prior_keeps_what_nothing_is_known_of():
    law = law_of("optimised_data", descents=50)
    np.testing.assert_allclose(OPERATOR @ law.mean.ravel(), SEEN, atol=0.02)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="moment_matched"):
        fit_guided(task(), options(), Trainer(), teacher(), KEY, rule="guess")


@pytest.fixture
def flow():
    """A flow whose network is the exact velocity."""
    chosen = options({"flow_steps": 60}) | {"network": {"name": "exact"}}
    chosen["training"] = chosen["training"] | {"flow_predicts": "edm"}
    net = dataclasses.replace(shared.network_of(task(), chosen), dtype="float64")
    world = oracles.as_mixture(WORLD)
    params = shared.Params(ExactParams(world, world), ENCODING, Encoding(jnp.zeros(0), jnp.ones(0)))
    return Fitted(make_model(net, chosen), params, {}), chosen


def answers_of(flow, method, count=64, noise=NOISE, **answers):
    """Samples of a method whose teacher is the exact flow, normalised units."""
    teacher, chosen = flow
    fitted = METHODS[method].fit(task(), chosen | {"answers": answers}, Trainer(), teacher, KEY)

    @jax.jit
    @jax.vmap
    def drawn(key):
        asked = fitted.model.prepare(fitted.params, question(noise))
        latent = jax.random.normal(key, SHAPE)
        return (fitted.model.draw(fitted.params, asked, latent, key) - ENCODING.shift) / ENCODING.scale

    return fitted.model, np.asarray(drawn(jax.random.split(KEY, count)))


@pytest.mark.parametrize("method", ["eci", "pcfm"])
def test_constrained_flows_hold_the_observations_to_rounding(flow, method):
    model, samples = answers_of(flow, method, times=40)
    np.testing.assert_allclose(samples.reshape(64, -1) @ OPERATOR.T, np.broadcast_to(SEEN, (64, 3)), atol=1e-6)
    assert samples.reshape(64, -1)[:, 1].std() > 0.3 and (model.num_calls, model.num_backward) == (40, 0)


def test_a_flow_in_its_own_metric_answers_with_the_posterior(flow):
    """Projected on what is seen alone, it keeps the prior of the rest; and does not know of noise."""
    laws = {NOISE: POSTERIOR, 0.0: oracles.condition_on(WORLD, OPERATOR, SEEN, 0.0)}
    errors = {}
    for noise, posterior in laws.items():
        for method in ("matched_flow", "pcfm"):
            _, samples = answers_of(flow, method, 4000, noise, times=60, iterations=3)
            flat = samples.reshape(len(samples), -1)
            if not noise:
                np.testing.assert_allclose(flat @ OPERATOR.T, np.broadcast_to(SEEN, (len(flat), 3)), atol=1e-6)
            law = oracles.GaussianWorld(jnp.mean(flat, axis=0).reshape(SHAPE), jnp.cov(flat.T))
            errors[method] = missed(law, posterior)
        assert max(errors["matched_flow"]) < 0.06 and errors["pcfm"][0] > 5 * errors["matched_flow"][0], errors


@pytest.mark.slow
def test_what_is_conserved_is_told_to_all_that_depends_on_it(flow, monkeypatch):
    """Values seen and a mean that is conserved: the posterior given both."""

    def balance(fields, condition):
        return (jnp.mean(fields[..., 0]) - ENCODING.shift[0] - 0.3 * ENCODING.scale[0])[None]

    told = dataclasses.replace(EQUATIONS, conserved=balance, affine_conserved=True)
    monkeypatch.setattr(sys.modules[__name__], "EQUATIONS", told)
    rows = jnp.concatenate([OPERATOR, jnp.tile(jnp.array([0.25, 0.0]), 4)[None]])
    posterior = oracles.condition_on(WORLD, rows, jnp.concatenate([SEEN, jnp.array([0.3])]), 0.0)
    _, samples = answers_of(flow, "matched_flow", 4000, 0.0, iterations=4)
    flat = samples.reshape(len(samples), -1)
    np.testing.assert_allclose(flat @ rows[3], 0.3, atol=1e-6)
    law = oracles.GaussianWorld(jnp.mean(flat, axis=0).reshape(SHAPE), jnp.cov(flat.T))
    assert max(missed(law, posterior)) < 0.06, missed(law, posterior)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "option", "calls"),
    [("d_flow", "searches", (42 * 12, 41 * 12)), ("piddm_search", "student_searches", (41, 40))],
)
def test_a_search_for_noise_meets_observations_and_equations(flow, method, option, calls, monkeypatch):
    """Residual: the sum of both fields, physical units. The student is the exact one of its world, in one call."""
    root = jnp.linalg.cholesky(WORLD.covariance)
    student = lambda network, prepared: lambda noise: (root @ noise.ravel()).reshape(SHAPE)  # noqa: E731
    monkeypatch.setattr("phdme_jax.methods.sampling.student_search.make_student", lambda net: student)
    _, free = answers_of(flow, method, **{option: 0})
    model, found = answers_of(flow, method, **{option: 40}, residual_weight=1.0, student_rate=0.1)
    assert (model.num_calls, model.num_backward) == calls
    missed_by = [np.abs(part.reshape(64, -1) @ OPERATOR.T - SEEN).mean() for part in (free, found)]
    total = [np.abs((ENCODING.shift + ENCODING.scale * part).sum(axis=-1)).mean() for part in (free, found)]
    assert missed_by[1] < 0.3 * missed_by[0] and total[1] < 0.5 * total[0], (missed_by, total)
