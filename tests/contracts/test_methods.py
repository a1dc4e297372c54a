"""Every method of the table, on one tiny problem of each kind that it does not refuse, keeps the protocol.

Finite; the same for the same key; another for another key; differentiable; traced once; `vmap` equal to a loop; a
constant that the dynamics keep is kept and changes nothing else.
"""

from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.files import InputError
from phdme_jax.methods.base import Examples, Start, Task, refuse, stage_key
from phdme_jax.methods.draws import draw_forecasts
from phdme_jax.methods.equations.questions import Question
from phdme_jax.methods.presets import INFORMED, MLP, baseline_group, equation_groups, equation_stages, generator_groups
from phdme_jax.methods.sampling.corrected import fit_corrected
from phdme_jax.methods.sampling.resolved import fit_resolved
from phdme_jax.methods.sensors.sensed import Sensed
from phdme_jax.methods.table import METHODS
from phdme_jax.numerics.stepping import rk4_step, rollout
from phdme_jax.systems import make_equations, make_system
from phdme_jax.systems.energy.base import parameter_values, vector_field
from phdme_jax.systems.given_frames import with_given_frames
from phdme_jax.training.stages import Trainer

KEY = jax.random.key(3)
TIMES = tuple(np.linspace(0.0, 2.0, 10).tolist())


def few(stages):
    """The first stage alone, two steps of it."""
    window, _, batch, rate = stages[0]
    return ((window, 2, min(batch, 2), rate),)


def string_world():
    """A short damped string, as task and options."""
    system = make_system("vibrating_string", num_points=9, order=2, stress="softening", damping=0.05)
    values = parameter_values(system, jnp.float64)
    draw = system.initial_state("random_smooth")

    @jax.jit
    @jax.vmap
    def solve(key):
        def step(state, dt):
            return rk4_step(lambda x: vector_field(system.structure, system.density, x, values), state, dt), dt

        return rollout(step, draw(key), jnp.asarray(TIMES), 8)

    observed = np.asarray(solve(jax.random.split(KEY, 4)))

    def starts(key, count):
        states = np.asarray(jax.vmap(draw)(jax.random.split(key, count)))
        return Start(states, np.zeros((count, len(TIMES), 0)))

    train = Examples(observed, Start(observed[:, 0], np.zeros((4, len(TIMES), 0))), TIMES)
    groups = generator_groups("smoke", radius=2)
    training = groups["training"]
    training |= {name: few(training[name]) for name in ("propagator_stages", "observed_stages")}
    # the scale of what a mean leaves, and its correction, have tests of their own
    training |= {"spread_stage": (), "residual_stage": (2, 2, 1e-3), "amplitude_draws": 0}
    groups["network"]["unet"] |= {"multipliers": (1,)}
    baselines = baseline_group("smoke")
    baselines["stages"] = {name: few(stages) for name, stages in baselines["stages"].items()}
    prior = {"main": 4, "margin": 1.5, "time_tests": 8, "space_tests": 4, "substeps": 2}
    options = {
        **groups,
        "prior": prior,
        "rollouts": {"count": 8},
        "baselines": baselines,
        "sampling": {"num_steps": 2, "num_samples": 2},
        "one_step": {"num_pairs": 4, "num_calls": 2, "stage": (2, 2, 1e-3)},
        "sensors": {
            "window": 3,
            "counts": (3,),
            "num_examples": 8,
            "directions": 4,
            "steps": 1,
            "num_calls": 2,
            "members": 8,
            "stage": (2, 2, 1e-3),
            "mlp": {"width": 8, "num_blocks": 1, "embedding_size": 4},
            "iterations": 1,
        },
    }
    return Task(system, lambda: train, starts, KEY, TIMES), options


# two hundred deviations of the strain
STRETCH = np.array([0.0, 50.0])


def stretched_world():
    """The same string stretched beforehand: states and energy are counted from a constant strain."""
    (task, options), plain = world("string"), lambda start: start._replace(state=start.state + STRETCH)
    train = task.train()
    train = train._replace(fields=train.fields + STRETCH, condition=plain(train.condition))
    system = replace(task.problem, density=lambda state: task.problem.density(state - STRETCH))
    starts = lambda key, count: plain(task.starts(key, count))  # noqa: E731
    return replace(task, problem=system, train=lambda: train, starts=starts), options


def poisson_world():
    """Poisson's equation on a short line, as task and options."""
    equations = make_equations("poisson_1d", num_points=17, num_waves=2)
    samples = jax.jit(jax.vmap(equations.draw))(jax.random.split(KEY, 6))
    train = Examples(np.asarray(samples.fields), np.asarray(samples.condition))
    options = {
        "data": {"num_train": 6, "num_test": 2, "kinds": ("linear", "linear")},
        "network": {**MLP, "width": 8, "num_blocks": 1, "embedding_size": 8},
        "stages": equation_stages(4, 2, 1e-3),
        "informed": {"mean_weight": 1e-3, "sample_weight": 1e-3, **INFORMED},
        "distilled": {"num_pairs": 4, "num_calls": 2},
        "residual_guidance": {"num_own": 4, "num_calls": 2},
        **equation_groups(),
    }
    options["stages"]["distilled"] = ((0.0, 2, 2, 1e-3), (1.0, 2, 2, 1e-3))
    options["stages"]["merged"] = ((2, 4, 2, 1e-3),)  # steps to the end of a flow: one stage of them
    options["sampling"] |= {"num_steps": 4, "flow_steps": 2, "corrections": (2, 2), "refinements": 2}
    options["answers"] = {
        "iterations": 1,
        "solver_iterations": 1,
        "times": 2,
        "searches": 1,
        "flow_steps": 1,
        "descents": 2,
    }
    return Task(
        equations, lambda: train, lambda key, count: np.zeros((count, *train.condition.shape[1:])), KEY
    ), options


def springs_world():
    """Particles on springs, three frames given, as task and options of what steps from frame to frame."""
    equations = with_given_frames(make_equations("five_springs", num_frames=6), 3)
    samples = jax.jit(jax.vmap(equations.draw))(jax.random.split(KEY, 6))
    train = Examples(np.asarray(samples.fields), np.asarray(samples.condition))
    stages = {"hnn": ((2, 2, 2, 1e-3),), "nri": ((2, 2, 2, 1e-3),)}
    options = {
        "prior": {"main": 8, "substeps": 4},
        "baselines": {
            "hnn": {"width": 8, "depth": 1}, "nri": {"width": 8}, "stages": stages, "substeps": 2,
            "rollout_substeps": 4, "ema_decay": 0.9,
        },
    }  # fmt: skip
    return Task(equations, lambda: train, lambda key, count: train.condition[:count], KEY), options


WORLDS = {"string": string_world, "poisson": poisson_world, "springs": springs_world}
CHANGED = {"string": ("stretched", STRETCH)}


@lru_cache
def world(name):
    return (WORLDS | {"stretched": stretched_world})[name]()


@lru_cache
def fitted(name, method):
    task, options = world(name)
    entry = METHODS[method]
    teacher = fitted(name, entry.teacher) if entry.teacher else None
    return entry.fit(task, options, host(name), teacher, stage_key(KEY, "method", entry.stream))


@lru_cache
def host(name):
    """Methods share what it keeps."""
    del name
    return Trainer()


# what compiles for long, minutes in all, is run by `make test-slow`; so are students and answers, which have tests of
# their own
QUICK = ("gp_rollout", "gp_dphs_independent")


def is_slow(name, method):
    return method not in QUICK if name == "string" else METHODS[method].scope == "named"


def belongs(name, entry):
    """Whether a method is tried on a problem; generators of particles are those of other fields."""
    particles = "particles" in entry.needs | entry.needs_instead and entry.teacher is None
    return entry.refusal(world(name)[0].problem) is None and (name != "springs" or particles)


CASES = [
    pytest.param((name, method), marks=[pytest.mark.slow] if is_slow(name, method) else [])
    for name in WORLDS
    for method, entry in METHODS.items()
    if belongs(name, entry)
]


def conditions(name, method, count=2):
    """Of the training examples; of a method that answers questions, with every second place of each seen."""
    task, _ = world(name)
    few = jax.tree.map(lambda leaf: leaf[:count], task.train().condition)
    if not METHODS[method].questions:
        return few
    fields = task.train().fields[:count]
    if name != "poisson":
        mask = np.zeros_like(fields[:, 0])
        mask[:, 1::3] = 1.0
        return Sensed(mask[:, None] * fields[:, :3], mask)
    mask = np.zeros_like(fields)
    mask[:, ::2] = 1.0
    return Question(few, mask, mask * fields, np.zeros((count, fields.shape[-1])))


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request):
    name, method = request.param
    return name, method, fitted(name, method)


@pytest.fixture(scope="module")
def program(case):
    """Fields of one condition and key with the gradient of their mean square, jitted, and how often it was traced."""
    _, _, found = case
    model, traces = found.model, []

    def one(params, condition, key):
        traces.append(None)

        floats, others = split_floats(params)

        def size(floats):
            params = merge(floats, others)
            prepared = model.prepare(params, condition)
            if model.latent is None:
                fields = model.mean(params, prepared)
            else:
                fields = model.draw(params, prepared, model.latent(key), key)
            return jnp.mean(fields**2), fields

        slope, fields = jax.grad(size, has_aux=True)(floats)
        return fields, slope

    return jax.jit(one), traces


@pytest.fixture(scope="module")
def drawn(case):
    """One sample of each of two conditions."""
    name, method, found = case
    return draw_forecasts(found, conditions(name, method), 1, KEY)


def split_floats(tree):
    leaves, structure = jax.tree.flatten(tree)
    is_float = [jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating) for leaf in leaves]
    floats = [leaf for leaf, chosen in zip(leaves, is_float, strict=True) if chosen]
    return floats, (leaves, is_float, structure)


def merge(floats, others):
    leaves, is_float, structure = others
    values = iter(floats)
    return jax.tree.unflatten(
        structure, [next(values) if chosen else leaf for leaf, chosen in zip(leaves, is_float, strict=True)]
    )


def example(name, method, index):
    return jax.tree.map(lambda leaf: leaf[index], conditions(name, method))


def test_fields_are_finite_deterministic_and_a_function_of_the_key_traced_once(case, program):
    (name, method, found), (one, traces) = case, program
    first, slope = one(found.params, example(name, method, 0), KEY)
    again, _ = one(found.params, example(name, method, 0), KEY)
    other, _ = one(found.params, example(name, method, 0), jax.random.key(4))
    one(found.params, example(name, method, 1), KEY)
    task, _ = world(name)
    assert first.shape == task.train().fields.shape[1:] and np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)
    # an energy without a random part is the same for every key
    certain = found.model.latent is None or method == "quadratic_hamiltonian"
    assert certain == bool(np.array_equal(first, other))
    assert all(np.isfinite(leaf).all() for leaf in slope)
    assert any(np.abs(leaf).max() > 0 for leaf in slope) or method == "constant_velocity", "nothing is learned by it"
    assert len(traces) == 1


def test_many_at_once_are_those_of_a_loop(case, program, drawn):
    (name, method, found), (one, _) = case, program
    keys = jax.random.split(KEY, (2, 1))
    loop = np.stack([one(found.params, example(name, method, index), keys[index, 0])[0] for index in range(2)])
    many = drawn.mean if drawn.samples is None else drawn.samples[:, 0]
    assert (drawn.ok.all() and drawn.mean is None) or drawn.mean.shape == many.shape
    np.testing.assert_allclose(many, loop, atol=2e-4 * np.abs(loop).max(), rtol=1e-3)


def test_finished_fields_are_finite(case, drawn):
    name, method, found = case
    assert drawn.finished(found.model, conditions(name, method)).ok.all()


@pytest.mark.slow
def test_a_constant_that_the_dynamics_keep_changes_no_forecast_but_by_itself(case, drawn):
    name, method, _ = case
    if name not in CHANGED:
        pytest.skip("nothing of it is kept")
    other, constant = CHANGED[name]
    moved = draw_forecasts(fitted(other, method), conditions(other, method), 1, KEY)
    deviation = world(name)[0].train().fields.std(axis=(0, 1, 2))
    for shifted, values in ((moved.mean, drawn.mean), (moved.samples, drawn.samples)):
        assert (shifted is None) == (values is None)
        if values is not None:
            assert np.abs((shifted - constant - values) / deviation).max() < 0.02


def test_a_method_that_does_not_fit_refuses_with_a_sentence():
    problems = {name: world(name)[0].problem for name in WORLDS}
    with pytest.raises(InputError, match="gp_rollout needs structure, which poisson_1d does not offer"):
        refuse(METHODS["gp_rollout"], problems["poisson"])
    with pytest.raises(InputError, match="pidm_me needs residual, which vibrating_string does not offer"):
        refuse(METHODS["pidm_me"], problems["string"])


def test_teachers_are_in_the_table_and_no_two_methods_that_learn_share_random_draws():
    assert all(entry.teacher is None or entry.teacher in METHODS for entry in METHODS.values())
    for other in ("structure", "residual"):  # no problem offers both
        streams = {}
        for method, entry in METHODS.items():
            learns = entry.fit not in (fit_corrected, fit_resolved) and entry.scope != "named"
            if learns and other not in entry.needs:
                assert entry.stream not in streams, f"{method} draws as {streams[entry.stream]} does"
                streams[entry.stream] = method
