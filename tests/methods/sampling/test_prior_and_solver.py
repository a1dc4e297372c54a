"""A prior of the cause and the solver: the exact posterior of linear equations, exact solutions of known causes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.methods.base import Examples, Task
from phdme_jax.methods.equations import network as shared
from phdme_jax.methods.equations.encoding import Encoding
from phdme_jax.methods.equations.questions import Question
from phdme_jax.methods.presets import INFORMED, MLP, equation_groups
from phdme_jax.methods.sampling.prior_and_solver import fit_prior, fit_prior_and_solver, solved_answers
from phdme_jax.systems import make_equations
from phdme_jax.systems.equations.elliptic import draw_smooth_field, solve_helmholtz
from tests import oracles
from tests.methods.equations.world import Disturbing
from tests.methods.sampling.teachers import exact_diffusion

POINTS, KEY = 9, jax.random.key(0)
POISSON = make_equations("poisson_2d", num_points=POINTS)
SHAPE = (POINTS, POINTS, 1)
SAMPLES = jax.jit(jax.vmap(POISSON.draw))(jax.random.split(KEY, 256))
EXAMPLES = Examples(np.asarray(SAMPLES.fields), np.asarray(SAMPLES.condition))
SOLUTION_SCALE, SOURCE = float(jnp.std(SAMPLES.fields[..., 0])), Encoding(jnp.array([0.1]), jnp.array([0.8]))
NOISE = (0.2, 0.1)  # of solution and source, normalised


def options(**answers):
    groups = {
        "data": {"kinds": ("linear", "linear")},
        "network": {**MLP, "width": 8, "num_blocks": 1},
        "informed": {"mean_weight": 1.0, "sample_weight": 1.0, **INFORMED},
        "stages": {"diffusion": ((1, 2, 4, 1e-3),)},
        **equation_groups("edm", {"sampler": "dpm", "num_steps": 100, "spacing": "log_snr"}),
    }
    return {**groups, "answers": answers}


def task():
    return Task(POISSON, lambda: EXAMPLES, lambda key, count: EXAMPLES.condition[:count], KEY)


def source_law():
    """Of the normalised source: Gaussian, its covariance that of the linear map from its noise."""
    size = POINTS**2
    root = linear_map(lambda noise: field_of_noise(noise) / SOURCE.scale[0])
    return oracles.GaussianWorld(jnp.full(SHAPE, -SOURCE.shift[0] / SOURCE.scale[0]), root @ root.T + 0 * jnp.eye(size))


def linear_map(function):
    size = POINTS**2
    columns = jax.jit(jax.vmap(lambda unit: function(unit.reshape(POINTS, POINTS)).ravel()))(jnp.eye(size))
    return columns.T


def field_of_noise(noise):
    """What `draw_smooth_field` makes of its noise, found by its own linearity: by the spectrum of its cosines."""
    wave = np.pi * np.arange(POINTS)
    size = 3.0 / (wave[:, None] ** 2 + wave**2 + 9.0)
    size[0, 0] = 0.0
    return jax.scipy.fft.idctn(jnp.asarray(POINTS * size) * noise, norm="ortho")


WORLD = source_law()


def prior():
    """A diffusion model of sources whose denoiser is the exact one."""
    net = shared.EquationNetwork(POISSON, shared.make_network(SHAPE, **MLP), ("linear",), SHAPE, "float64")
    return exact_diffusion(net, WORLD, shared.Params(None, SOURCE, Encoding(jnp.zeros(0), jnp.ones(0))))


def question(mask, fields, noise):
    return Question(jnp.zeros((POINTS, POINTS, 0)), mask, mask * fields, jnp.asarray(noise))


def answers_to(asked, fitted):
    """Noise -> fields in physical units, finished."""

    def drawn(noise):
        model = fitted.model
        fields = model.draw(fitted.params, model.prepare(fitted.params, asked), noise, KEY)
        return model.finish(fields, asked)

    return drawn


@pytest.mark.slow
def test_the_covariance_of_the_prior_is_that_of_the_data():
    draws = jax.jit(jax.vmap(lambda key: draw_smooth_field(POINTS, key)))(jax.random.split(KEY, 20000))
    covariance = jnp.cov(draws.reshape(20000, -1).T)
    expected = WORLD.covariance * SOURCE.scale[0] ** 2
    assert float(jnp.linalg.norm(covariance - expected) / jnp.linalg.norm(expected)) < 0.03


@pytest.mark.slow
def test_answers_about_linear_equations_are_the_posterior_of_cause_and_solution():
    """Three places of the solution and three of the source, with noise: mean and covariance within 1 %."""
    mask = jnp.zeros((POINTS, POINTS, 2))
    for place in ((2, 3, 0), (4, 6, 0), (6, 2, 0), (1, 1, 1), (4, 4, 1), (7, 5, 1)):
        mask = mask.at[place].set(1.0)
    truth, fitted = SAMPLES.fields[3], solved_answers(prior(), task(), options(solver_iterations=6))
    scales = jnp.array([fitted.params.fields.scale[0], SOURCE.scale[0]])
    asked = question(mask, truth, jnp.array(NOISE) * scales)
    law = oracles.affine_law(lambda noise: answers_to(asked, fitted)(noise)[..., 1:], SHAPE)
    solve = linear_map(solve_helmholtz)
    # in physical units
    source = oracles.GaussianWorld(jnp.zeros(SHAPE), WORLD.covariance * SOURCE.scale[0] ** 2)
    operator = jnp.concatenate([solve / scales[0] / NOISE[0], jnp.eye(POINTS**2) / scales[1] / NOISE[1]])
    seen = jnp.flatnonzero(jnp.moveaxis(mask, -1, 0).ravel(), size=6)
    values = (jnp.moveaxis(truth, -1, 0).reshape(2, -1) / (scales * jnp.array(NOISE))[:, None]).ravel()
    posterior = oracles.condition_on(source, operator[seen], values[seen], 1.0)
    apart = [
        float(jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected))
        for found, expected in ((law.mean, posterior.mean), (law.covariance, posterior.covariance))
    ]
    assert max(apart) < 0.01, apart
    learned = jnp.linalg.norm(posterior.covariance - source.covariance) / jnp.linalg.norm(source.covariance)
    assert float(learned) > 0.2, "there was something to learn"
    # and the solution is that of the source
    fields = jax.jit(answers_to(asked, fitted))(jax.random.normal(KEY, SHAPE))
    np.testing.assert_allclose(fields[..., 0], solve_helmholtz(fields[..., 1]), atol=1e-12)


@pytest.mark.slow
def test_corrections_draw_from_the_same_posterior():
    """A forward question with noise at one place: mean and deviation of the cause there, by 2,000 draws."""
    place, noise = (4, 4), 0.5
    mask = jnp.zeros((POINTS, POINTS, 2)).at[*place, 1].set(1.0)
    truth = jnp.zeros((POINTS, POINTS, 2)).at[*place, 1].set(SOURCE.scale[0])
    chosen = options(solver_iterations=2, solver_corrections=3, langevin_step=0.2)
    chosen["sampling"] = chosen["sampling"] | {"num_steps": 30}
    fitted = solved_answers(prior(), task(), chosen)
    asked = question(mask, truth, jnp.array([1.0, noise * SOURCE.scale[0]]))
    assert fitted.model.num_calls == 30 + 29 * 3 and fitted.model.num_backward == 2 * fitted.model.num_calls

    @jax.jit
    @jax.vmap
    def drawn(key):
        latent = jax.random.normal(key, SHAPE)
        model, prepared = fitted.model, fitted.model.prepare(fitted.params, asked)
        fields = model.draw(fitted.params, prepared, latent, jax.random.fold_in(key, 1))
        return fields[*place, 1] / SOURCE.scale[0]

    found = np.asarray(drawn(jax.random.split(KEY, 2000)))
    variance = float(WORLD.covariance[place[0] * POINTS + place[1], place[0] * POINTS + place[1]])
    gain = variance / (variance + noise**2)
    deviation = noise * np.sqrt(gain)
    assert abs(found.mean() - gain) < 4 * deviation / np.sqrt(2000) + 0.02
    assert found.std() == pytest.approx(deviation, rel=0.06)


def test_a_known_cause_is_solved_whatever_the_prior():
    fitted = fit_prior_and_solver(task(), options(solver_iterations=1), Disturbing(), None, KEY)
    truth = SAMPLES.fields[1]
    known = question(jnp.zeros_like(truth).at[..., 1].set(1.0), truth, jnp.zeros(2))
    noise, answer = fitted.model.latent(KEY), jax.jit(lambda asked, noise: answers_to(asked, fitted)(noise))
    fields = answer(known, noise).astype(float)
    np.testing.assert_allclose(fields, truth, atol=1e-5 * float(jnp.abs(truth).max()))
    # with noise it is guessed at
    noisy = question(known.mask, truth, jnp.ones(2))
    others = answer(noisy, noise).astype(float)
    assert float(jnp.abs(others - truth).max()) > 0.01


def test_the_prior_sees_no_solution():
    """Whatever the solutions of the examples, it learns from the same arrays, to the last bit."""
    spoiled = EXAMPLES._replace(fields=np.where(np.arange(2) == 0, 7.0 * EXAMPLES.fields, EXAMPLES.fields))
    learned = []
    for examples in (EXAMPLES, spoiled):
        host = Disturbing()
        fitted = fit_prior(dataclasses.replace(task(), train=lambda found=examples: found), options(), host, KEY)
        learned.append((host.asked[0][2], fitted.params))
    jax.tree.map(np.testing.assert_array_equal, *learned)
    assert fitted.model.latent(KEY).shape == SHAPE and len(host.asked) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["darcy_nodal", "helmholtz_2d"])
def test_solvers_have_slopes_in_the_cause_forwards_and_backwards(name):
    equations = make_equations(name, num_points=10)
    drawn = equations.draw(KEY)
    cause, direction = drawn.fields[..., 1], jax.random.normal(KEY, (10, 10))

    def solved(cause):
        return equations.resolve(jnp.stack([0 * cause, cause], -1), drawn.condition)[..., 0]

    @jax.jit
    def slopes(cause, direction, weights):
        _, along = jax.linearize(solved, cause)
        return along(direction), jax.linear_transpose(along, cause)(weights)[0]

    size, weights = 1e-5, jax.random.normal(jax.random.key(1), (10, 10))
    below, above = jax.jit(jax.vmap(solved))(jnp.stack([cause - size * direction, cause + size * direction]))
    along, across = slopes(cause, direction, weights)
    expected = (above - below) / (2 * size)
    np.testing.assert_allclose(along, expected, atol=1e-6 * float(jnp.abs(expected).max()))
    assert float(jnp.vdot(weights, along)) == pytest.approx(float(jnp.vdot(across, direction)), rel=1e-8)
