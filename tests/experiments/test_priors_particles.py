"""Scores of the study of particles: zero where motions are true, and what known errors make them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import priors_particles
from experiments.data.equations import FieldSet, draw_set
from experiments.data.particles import options_of_case
from experiments.evaluation.particles import law_scores, marginal_error, motion_scores, other_motions
from experiments.study.command import parse
from phdme_jax.systems import make_equations

# what is kept is that of the exact motion, which the scheme of the springs keeps nearly
ENERGIES = {"five_springs": 1e-3, "gravity": 1e-2}


@pytest.fixture(scope="module", params=list(ENERGIES))
def motions(request):
    equations = make_equations(request.param, num_frames=5)
    return equations, draw_set(equations, 32, jax.random.key(0))


def test_true_motions_miss_nothing(motions):
    equations, data = motions
    rows = motion_scores(equations, data)
    for name in ("dynamic_error", "trajectory_error", "velocity_error", "momentum_error"):
        assert rows[name].value < 1e-10, name
    assert rows["energy_error"].value < ENERGIES[equations.name]


def test_noise_of_velocities_is_found_in_the_momentum(motions):
    """Of N unit masses each component of the momentum has noise s sqrt(N), less the mean over T frames: (T - 1) / T."""
    equations, data = motions
    dimension, size = len(equations.fields) // 2, 0.01
    frames, count = equations.grid.points
    noise = np.zeros_like(data.fields)
    noise[..., dimension:] = size * np.random.default_rng(0).normal(size=noise[..., dimension:].shape)
    rows = motion_scores(equations, FieldSet(data.fields + noise, data.condition))
    expected = size * np.sqrt(count * (frames - 1) / frames)
    assert rows["momentum_error"].value == pytest.approx(expected, rel=0.15)
    assert rows["energy_error"].value > 10 * motion_scores(equations, data)["energy_error"].value
    # of the velocities half the fields; noise of one frame and what follows from that of the frame before
    assert size * np.sqrt(0.5) < rows["dynamic_error"].value < 3 * size
    assert rows["velocity_error"].value > size * np.sqrt((frames - 1) / frames) * 0.9


def test_a_set_is_at_no_distance_from_itself_and_noise_is(motions):
    equations, data = motions
    rows = law_scores(equations, data, data)
    assert rows["marginal_score"].value == 0.0
    assert all(rows[f"wasserstein_{name}"].value in (0.0, None) for name in ("energy", "momentum", "distance", "speed"))
    noise = 0.5 * np.random.default_rng(1).normal(size=data.fields.shape)
    other = law_scores(equations, FieldSet(data.fields + noise, data.condition), data)
    assert other["marginal_score"].value > 0 and other["wasserstein_speed"].value > 0.05
    assert other["mmd"].value > rows["mmd"].value
    broken = law_scores(equations, FieldSet(np.full_like(data.fields, np.nan), data.condition), data)
    assert all(row.value is None for row in broken.values())


def test_the_floor_has_the_couplings_of_what_is_compared(motions):
    """Other motions are true ones of these couplings, which their own first frames do not know."""
    equations, data = motions
    other = draw_set(equations, 16, jax.random.key(1))
    found = other_motions(equations, other.fields, data.condition)
    np.testing.assert_array_equal(found.condition, data.condition[:16])
    assert motion_scores(equations, found)["trajectory_error"].value < 1e-10
    dimension = len(equations.fields) // 2
    np.testing.assert_allclose(found.fields[..., :dimension].mean(axis=(1, 2)), 0.0, atol=1e-12)
    shift = found.fields[:, :1] - other.fields[:, :1]
    np.testing.assert_allclose(shift, np.broadcast_to(shift[:, :, :1], shift.shape), atol=1e-12)  # but for the mean
    if data.condition.shape[-1]:
        wrong = FieldSet(other.fields, data.condition[:16])
        assert motion_scores(equations, wrong)["trajectory_error"].value > 1e-3
    else:
        np.testing.assert_allclose(found.fields, other.fields, atol=1e-10)


def test_marginal_error_of_what_lies_elsewhere_is_counted_by_hand():
    """Places even on [0, 1], in 50 bins of width 1/50, have the density 1; moved by d, a share of d bins is empty."""
    places = (np.arange(5000) + 0.5) / 5000
    reference = np.tile(places.reshape(5000, 1, 1, 1), (1, 3, 1, 2))
    assert marginal_error(reference, reference) == 0.0
    # what leaves the range on one side is missing on the other
    for bins in (5, 25):
        assert marginal_error(reference + bins / 50, reference) == pytest.approx(bins / 50, rel=2e-2)
    assert marginal_error(reference + 2.0, reference) == pytest.approx(1.0, rel=1e-2)
    # of two axes and three frames one alone is elsewhere
    moved = reference.copy()
    moved[:, 1, :, 0] += 2.0
    assert marginal_error(moved, reference) == pytest.approx(1 / 6, rel=1e-2)


def test_observables_change_with_no_rotation_and_no_order():
    equations = make_equations("five_springs", num_frames=3)
    data = draw_set(equations, 8, jax.random.key(3))
    symmetry = equations.priors.symmetry
    elements = jax.vmap(symmetry.draw)(jax.random.split(jax.random.key(4), 8))
    moved = FieldSet(*map(np.asarray, jax.vmap(symmetry.act)(elements, *map(jnp.asarray, data))))
    rows = law_scores(equations, moved, data)
    for name in ("energy", "distance", "speed"):
        assert rows[f"wasserstein_{name}"].value < 1e-10
    assert rows["marginal_score"].value > 1e-3, "it is of the coordinates"


@pytest.mark.slow
def test_every_method_fits_its_cases(tmp_path):
    study = priors_particles.STUDY
    arguments = ["--size", "smoke", "--methods", ",".join(study.methods), "--workdir", str(tmp_path)]
    context = parse(study, arguments)
    study.check(context)
    cases = {case: {variant.method for variant in context.entries(case)} for case in study.cases}
    assert [case for case in study.cases if "penalty_convex" in cases[case]] == ["five_springs"]
    assert options_of_case(context.config, "three_body")["network"]["dimension"] == 2
