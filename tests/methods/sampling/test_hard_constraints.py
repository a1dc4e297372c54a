"""Values and conserved quantities imposed together in single precision, whatever the network says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion.constrained import project
from phdme_jax.methods.base import Examples, Fitted, Task
from phdme_jax.methods.equations import network as shared
from phdme_jax.methods.equations.constraints import conserved_of, residual_of
from phdme_jax.methods.equations.encoding import Encoding
from phdme_jax.methods.equations.flow import make_model
from phdme_jax.methods.equations.questions import Observed, Question
from phdme_jax.methods.presets import INFORMED, MLP, equation_groups
from phdme_jax.methods.sampling.answering import Answering
from phdme_jax.methods.sampling.constrained_flow import STEPPED, able_to_impose, settled
from phdme_jax.methods.table import METHODS
from phdme_jax.systems import make_equations
from phdme_jax.training.stages import Trainer
from tests.rough import rough

KEY = jax.random.key(0)
FIXED = {"burgers_ic": {"shock": 0.5}, "heat": {"phase": 1.0}, "reaction_diffusion": {"initial": 1}}


def ask(case, method, **answers):
    """Answers of an untrained network to the first frame, the truth, and equations."""
    size = {"num_points": 16, "num_frames": 16}
    whole, fixed = make_equations(case, **size), make_equations(case, **size, **FIXED[case])
    fields, truth = (np.asarray(jax.jit(jax.vmap(one.draw))(jax.random.split(KEY, 8)).fields) for one in (whole, fixed))
    task = Task(whole, lambda: Examples(fields, fields[..., :0]), lambda key, count: fields[:count, ..., :0], KEY)
    options = {
        "data": {"kinds": ("linear",)},
        "network": {**MLP, "width": 16, "num_blocks": 1, "embedding_size": 8},
        "informed": {"mean_weight": 1.0, "sample_weight": 1.0, **INFORMED},
        **equation_groups(),
        "answers": {"times": 5, **answers},
    }
    net = shared.network_of(task, options)
    params = shared.fit_params(net, task.train())
    example = jax.tree.map(lambda leaf: leaf[0], shared.encode_examples(net, params, task.train()))
    network = rough(shared.init_network(net, example, False, KEY))
    teacher = Fitted(make_model(net, options), params._replace(network=network), {})
    fitted = METHODS[method].fit(task, options, Trainer(), teacher, KEY)
    model, params = fitted.model, fitted.params
    mask = np.zeros(truth.shape[1:])
    mask[:, 0] = 1.0
    question = Question(*map(jnp.asarray, (truth[0, ..., :0], mask, mask * truth[0], np.zeros(1))))

    @jax.jit
    @jax.vmap
    def answer(key):
        asked = model.prepare(params, question)
        return model.draw(params, asked, model.latent(key), key)

    found = answer(jax.random.split(KEY, 8))
    assert found.dtype == jnp.float32 and float(jnp.std(found, axis=0)[:, 1:].mean()) > 0.05 * truth.std()
    return whole, truth, np.asarray(found, np.float64)


def missed(equations, truth, found):
    """Largest miss of the first frame and of what is conserved, in units of the deviation."""
    balance = jax.jit(jax.vmap(equations.conserved))(jnp.asarray(found), jnp.asarray(found[..., :0]))
    return np.abs((found - truth)[:, :, 0]).max() / truth.std(), float(jnp.abs(balance).max()) / truth.std()


@pytest.mark.parametrize("case", list(FIXED))
def test_projections_impose_values_and_what_is_conserved(case):
    values, balance = missed(*ask(case, "pcfm"))
    assert values < 1e-6 and balance < 1e-6


def test_what_is_not_to_be_imposed_is_missed():
    values, balance = missed(*ask("burgers_ic", "pcfm", imposes_conserved=False))
    assert values < 1e-6 and balance > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pcfm", "matched_flow"])
def test_first_steps_of_a_scheme_are_imposed_where_asked_for(method):
    equations, truth, found = ask("burgers_ic", method, imposed_frames=2)
    residual = jax.jit(jax.vmap(equations.residual))(jnp.asarray(found), jnp.asarray(found[..., :0]))["balance"]
    left = np.sqrt(np.mean(np.asarray(residual).reshape(found.shape) ** 2, axis=(0, 1, 3)))
    assert left[1:3].max() < 1e-4 * left[3:].min()
    values, balance = missed(equations, truth, found)
    assert values < 1e-6 and balance < 3e-6


def test_steps_that_say_again_what_is_conserved_are_imposed_with_it():
    """Five steps of the scheme on its own grid: the balances of their frames follow from them."""
    equations = make_equations("burgers_ic")
    truth = jax.jit(jax.vmap(equations.draw))(jax.random.split(KEY, 4)).fields.astype(jnp.float32)
    scale = Encoding(jnp.zeros(1, jnp.float32), jnp.ones(1, jnp.float32))
    balance, residual = (made(equations, ("linear",), scale, truth[0, ..., :0]) for made in (conserved_of, residual_of))

    def steps(fields):
        return 0.02 * residual(fields)[:, 1:6]

    @jax.jit
    @jax.vmap
    def left(example, noise):
        mask = jnp.zeros_like(example).at[:, 0].set(1.0)
        found = settled(Observed(mask, example, jnp.zeros(1)), STEPPED, balance, steps)(example + 0.1 * noise)
        return jnp.abs(balance(found)).max(), jnp.abs(steps(found)).max()

    balances, stepped = left(truth, jax.random.normal(KEY, truth.shape, jnp.float32))
    assert balances.max() < 3e-6 and stepped.max() < 3e-6, (balances, stepped)


@pytest.mark.parametrize(
    ("case", "size", "frames", "message"),
    [("poisson_2d", {"num_points": 9}, 2, "not known to have one"), ("heat", {"num_frames": 16}, 16, "below the 16")],
)
def test_frames_that_are_not_there_are_refused(case, size, frames, message):
    equations = make_equations(case, **size)
    net = shared.EquationNetwork(equations, shared.make_network((9, 9, 1), **MLP), ("linear",), (9, 9, 1))
    task = Task(equations, lambda: None, lambda key, count: None, KEY)
    with pytest.raises(ValueError, match=message):
        able_to_impose(
            net, Answering(imposed_frames=frames), Fitted(make_model(net, {"sampling": {}}), None, {}), task, KEY
        )


def test_values_written_over_are_corrected_where_that_is_exact():
    """The mean of heat by a constant a frame; the fluxes of Burgers' equation are no affine function of its values."""
    values, balance = missed(*ask("heat", "eci"))
    assert values < 1e-6 and balance < 1e-6
    values, balance = missed(*ask("burgers_ic", "eci"))
    assert values < 1e-6 and balance > 1e-2


def test_a_mean_is_corrected_by_the_same_constant_everywhere_it_may_change():
    equations = make_equations("heat", num_points=16, num_frames=16)
    encoding, fields = Encoding(jnp.zeros(1), jnp.full(1, 2.0)), jax.random.normal(KEY, (16, 16, 1))
    balance = conserved_of(equations, ("linear",), encoding, fields[..., :0])
    held = fields[:, :1]
    later = project(lambda x: balance(jnp.concatenate([held, x], axis=1)), fields[:, 1:], 2, 40)
    change = later - fields[:, 1:]
    np.testing.assert_allclose(
        change, jnp.broadcast_to(jnp.mean(held) - fields[:, 1:].mean(axis=0), change.shape), atol=1e-9
    )


def test_points_that_obey_already_stay_where_they_are():
    """Products of what is tiny vanish and divide."""
    for start in (jnp.ones(4, jnp.float32), jnp.full(4, 1.0 + 1e-7, jnp.float32)):
        found = project(lambda x: 1e-18 * (x - 1.0), start, 3, 20)
        np.testing.assert_allclose(found, 1.0, atol=2e-7)
