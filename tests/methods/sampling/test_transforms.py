"""Teachers whose draws are corrected or solved anew: what changes, what stays, and that nothing is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.methods.equations.diffusion import fit_diffusion
from phdme_jax.methods.sampling.corrected import fit_corrected
from phdme_jax.methods.sampling.resolved import fit_resolved
from phdme_jax.systems.equations.base import stacked_residual
from tests.methods.equations.world import OPTIONS, POISSON, Disturbing, sampled, task

KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def teacher():
    return fit_diffusion(task(), OPTIONS, Disturbing(), None, jax.random.key(7))


def corrected(teacher, corrections):
    options = {**OPTIONS, "sampling": {**OPTIONS["sampling"], "corrections": corrections}}
    return sampled(fit_corrected(task(), options, Disturbing(), teacher, jax.random.key(0)), KEY)


def residual_size(fields):
    return float(jnp.mean(jnp.abs(stacked_residual(POISSON, fields, jnp.zeros((20, 0))))))


@pytest.fixture
def optimised():
    """Programs as users run them, which agree to the last bit in what they share."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_a_corrected_sample_obeys_the_equation_better_and_keeps_the_other_fields(teacher):
    plain, after = sampled(teacher, KEY), corrected(teacher, (0, 200))
    np.testing.assert_array_equal(plain[:, 1], after[:, 1])
    assert residual_size(after) < 0.5 * residual_size(plain)
    assert np.abs(corrected(teacher, (4, 200)) - after).max() > 1e-6
    np.testing.assert_allclose(corrected(teacher, (0, 0)), plain, atol=1e-6)


def test_a_solution_computed_anew_finishes_the_teachers_own_draws(teacher):
    fitted, condition = fit_resolved(task(), OPTIONS, Disturbing(), teacher, jax.random.key(0)), jnp.zeros((20, 0))
    assert fitted.model.draw is teacher.model.draw, "drawn once for both"
    fields = sampled(teacher, KEY).astype(jnp.float64)
    resolved = fitted.model.finish(fields, condition)
    np.testing.assert_array_equal(fields[:, 1], resolved[:, 1])
    np.testing.assert_allclose(resolved, POISSON.resolve(resolved, condition), atol=1e-12)
    assert fitted.params is teacher.params and fitted.seconds == teacher.seconds
