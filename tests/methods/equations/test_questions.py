"""Questions: what is observed reaches a method in its units, and bad questions are one sentence."""

import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.files import InputError
from phdme_jax.methods.equations.encoding import Encoding
from phdme_jax.methods.equations.questions import LEAST_NOISE, Question, ask, ask_sensors, observed
from phdme_jax.systems import make_equations

POISSON = make_equations("poisson_2d", num_points=9)
SHAPE = (9, 9, 2)
MASK = np.zeros(SHAPE)
MASK[2, 3, 1] = 1.0
VALUES = np.where(MASK > 0, 2.5, np.nan)


def test_observations_are_normalised_and_what_is_not_seen_is_not_read():
    question = ask(POISSON, MASK, VALUES, noise=(0.0, 0.1))
    encoding = Encoding(jnp.array([0.0, 0.3]), jnp.array([2.0, 4.0]))
    seen = observed(question, encoding, ("linear", "log"))
    expected = (np.log(2.5) - 0.3) / 4.0
    assert float(seen.values[2, 3, 1]) == pytest.approx(expected)
    assert float(jnp.abs(seen.values).sum()) == pytest.approx(expected)  # zeros elsewhere, of logarithms too
    np.testing.assert_allclose(seen.noise, [LEAST_NOISE, 0.025])
    fields = jnp.ones(SHAPE)
    missed = np.asarray(seen.misfit(fields))
    assert missed[2, 3, 1] == pytest.approx((1 - expected) / 0.025) and np.count_nonzero(missed) == 1
    written = np.asarray(seen.written_over(fields))
    assert written[2, 3, 1] == pytest.approx(expected) and written.sum() == pytest.approx(fields.size - 1 + expected)


def test_sensors_are_a_mask_and_what_is_read_twice_alike_counts_once():
    found = ask_sensors(POISSON, [(2, 3), (0, 8), (2, 3)], ["source"] * 3, [2.0, -1.0, 2.0], noise=(0.1, 0.1))
    assert isinstance(found, Question) and float(found.mask.sum()) == 2
    assert float(found.values[2, 3, 1]) == 2.0 and float(found.values[0, 8, 1]) == -1.0


def test_conditions_and_cells_are_asked_for():
    topology = make_equations("topology", num_squares=4)
    shape, count = (*topology.grid.points, len(topology.fields)), len(topology.conditions)
    place = (1, 1, topology.fields.index(topology.cell_fields[0]))
    mask, values = np.zeros(shape), np.full(shape, 0.5)
    mask[place] = 1.0
    given = np.ones((*shape[:-1], count))
    assert float(ask(topology, mask, values, condition=given).mask.sum()) == 1
    with pytest.raises(InputError, match=r"expected the conditions .* of topology, got none"):
        ask(topology, mask, values)
    with pytest.raises(InputError, match="expected finite conditions"):
        ask(topology, mask, values, condition=np.nan * given)
    mask[-1, 1, place[-1]] = 1.0
    with pytest.raises(InputError, match="in the cells between the nodes"):
        ask(topology, mask, values, condition=given)


def spoiled(value, place=(2, 3, 1)):
    values = VALUES.copy()
    values[place] = value
    return values


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.zeros(SHAPE), VALUES), "at least one observation, got an empty mask"),
        ((np.zeros((8, 9, 2)), VALUES), r"mask of shape \(9, 9, 2\)"),
        ((MASK, np.zeros((9, 9))), r"values of shape"),
        ((MASK, spoiled(np.nan)), "finite observations, got 1"),
        ((0.5 * MASK, VALUES), "ones and zeros"),
        ((MASK, VALUES, (0.1,)), "one noise of at least zero"),
        ((MASK, VALUES, (0.1, -1.0)), "one noise of at least zero"),
        ((MASK, VALUES, None, np.zeros((9, 9, 1))), "conditions"),
    ],
)
def test_bad_questions_are_refused_with_a_sentence(arguments, words):
    with pytest.raises(InputError, match=words):
        ask(POISSON, *arguments)


@pytest.mark.parametrize(
    ("places", "fields", "readings", "words"),
    [
        ([(2, 3), (2, 3)], ["source"] * 2, [2.0, 2.1], "one reading of a field at a place, got 2 and 2.1 of source"),
        ([(2, 9)], ["source"], [2.0], "a place on the grid"),
        ([(2,)], ["source"], [2.0], "a place on the grid"),
        ([(-1, 0)], ["source"], [2.0], "a place on the grid"),
        ([(2, 3)], ["sauce"], [2.0], "among"),
        ([(2, 3)], ["source"], [], "one place, field and reading"),
        ([], [], [], "empty mask"),
    ],
)
def test_bad_sensors_are_refused_with_a_sentence(places, fields, readings, words):
    with pytest.raises(InputError, match=words):
        ask_sensors(POISSON, places, fields, readings)
