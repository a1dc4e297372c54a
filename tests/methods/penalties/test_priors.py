"""Priors in training: penalties beside denoising, and symmetry and what is linear through the whole method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.diffusion import make_space_time
from phdme_jax.diffusion.networks import Condition
from phdme_jax.methods.base import Examples, Fitted, Task, mean_model, stage_key
from phdme_jax.methods.equations.check import check
from phdme_jax.methods.equations.diffusion import make_denoise, teacher_schedule
from phdme_jax.methods.equations.encoding import decode, encode
from phdme_jax.methods.equations.network import (
    encode_examples,
    fit_params,
    make_prepare,
    network_of,
)
from phdme_jax.methods.penalties.fit import _continuing, _moved
from phdme_jax.methods.penalties.penalty import (
    features_of,
    fit_features,
    with_channels,
)
from phdme_jax.methods.presets import FEW_CALLS, INFORMED, equation_groups, equation_stages
from phdme_jax.methods.sampling.projected import with_projection
from phdme_jax.methods.table import METHODS
from phdme_jax.systems import make_equations
from phdme_jax.systems.given_frames import with_given_frames
from phdme_jax.systems.particles.base import act, motion_of
from phdme_jax.training.stages import Trainer
from tests.rough import rough

WEIGHTS = {"linear": 0.1, "convex": 0.2, "reducible": 0.3, "general": 0.4}
PENALTIES = {
    "linear": {"linear_momentum"},
    "convex": {"convex_energy"},
    "reducible": {"reducible_kinetic", "reducible_potential"},
    "general": {"general_energy"},
}
NET = {"name": "space_time", "width": 8, "vector_channels": 4, "layers": 1, "heads": 2, "embedding_size": 8}


@pytest.fixture(scope="module")
def springs():
    equations = make_equations("five_springs", num_frames=5)
    samples = jax.jit(jax.vmap(equations.draw))(jax.random.split(jax.random.key(0), 12))
    train = Examples(np.asarray(samples.fields), np.asarray(samples.condition))
    options = {
        "data": {"kinds": ("linear",) * 4},
        "network": {**NET, "equivariant": False},
        "symmetric_network": NET,
        "stages": equation_stages(3, 2, 1e-2),
        "informed": {"mean_weight": 1e-3, "sample_weight": 1e-3, **INFORMED},
        **equation_groups("edm", {**FEW_CALLS, "num_steps": 4}, noise="edm"),
        "penalties": {"weights": WEIGHTS},
    }
    return Task(equations, lambda: train, lambda key, count: train.condition[:count], jax.random.key(1)), options


class Watched(Trainer):
    """A trainer that keeps the first loss, of all examples, with the parameters that it begins from, and stops."""

    def train(self, stage, loss, params, data, key, **numbers):
        keys = jax.random.split(key, len(data.fields) * 200)
        many = jax.tree.map(lambda leaf: jnp.repeat(leaf, 200, axis=0), data)
        self.first = jax.jit(jax.vmap(loss, (None, 0, 0)))(params, many, keys)
        return params, 0.0


FITTED = {}


def fit(springs, name, host=None):
    """A fitted method; without a host of its own, once for all tests."""
    task, options = springs
    method, key = METHODS[name], stage_key(springs[0].key, "method", METHODS[name].stream)
    if host is not None:
        return method.fit(task, options, host, None, key)
    if name not in FITTED:
        FITTED[name] = method.fit(task, options, Trainer(), None, key)
    return FITTED[name]


@pytest.mark.slow
def test_without_priors_it_is_the_plain_diffusion_model(springs):
    from phdme_jax.methods.penalties.fit import fit_priors

    task, options = springs
    key = stage_key(task.key, "method", 0)
    plain = fit(springs, "diffusion")
    bare = fit_priors(task, options, Trainer(), None, key)
    jax.tree.map(np.testing.assert_array_equal, plain.params, bare.params)


@pytest.mark.parametrize(
    "form", [*(pytest.param(form, marks=pytest.mark.slow) for form in ("linear", "convex")), "reducible", "general"]
)
def test_a_penalty_begins_as_large_as_its_weight(springs, form):
    host = Watched()
    fit(springs, f"penalty_{form}", host)
    loss, metrics = host.first
    asked = {name: float(jnp.mean(value)) for name, value in metrics.items() if name != "denoising"}
    assert set(asked) == PENALTIES[form]
    added = float(jnp.mean(loss - metrics["denoising"]))
    # both are means over draws of levels and noise of the same examples, 192 and 2,400 of them
    assert added == pytest.approx(WEIGHTS[form], rel=0.4)
    assert min(asked.values()) > 0
    # parts of one form begin alike, whatever their sizes: their factors are told from the losses of all examples
    columns = np.stack([np.asarray(metrics[name], np.float64) for name in asked], axis=1)
    factors = np.linalg.lstsq(columns, np.asarray(loss - metrics["denoising"], np.float64), rcond=None)[0]
    share = factors * columns.mean(axis=0)
    np.testing.assert_allclose(share, WEIGHTS[form] / len(asked), rtol=0.4)


def test_features_are_normalised_and_their_head_leaves_the_fields_alone(springs):
    task, options = springs
    net = network_of(task, options)
    (general,) = (one for one in task.problem.priors.feasibilities if one.form == "general")
    data = encode_examples(net, fit_params(net, task.train()), task.train())
    features = fit_features(net, general, data)
    found = (jax.vmap(lambda one: features_of(net, general, one))(data) - features.shift) / features.scale
    np.testing.assert_allclose(found.mean(axis=(0, 1, 2)), 0.0, atol=1e-4)
    np.testing.assert_allclose(found.std(axis=(0, 1, 2)), 1.0, atol=1e-4)
    # squared speed and potential terms of particles, as they are
    fields = np.asarray(task.train().fields[0])
    speed = (fields[..., 2:] ** 2).sum(axis=-1)
    direct = features_of(net, general, jax.tree.map(lambda leaf: leaf[0], data))
    np.testing.assert_allclose(direct[..., 0], speed, rtol=1e-4)
    wide = with_channels(net.network, 3)
    condition = Condition(rollout=data.given.channels[0])
    params = jax.eval_shape(wide.init, jax.random.key(0), data.fields[0], condition)
    answer = jax.eval_shape(wide.apply, params, data.fields[0], jnp.float32(0.1), condition)
    assert answer.shape == (*data.fields[0].shape[:-1], 7)


def test_encodings_commute_with_the_group(springs):
    task, options = springs
    net = network_of(task, options)
    params = fit_params(net, task.train())
    data = encode_examples(net, params, task.train())
    one = jax.tree.map(lambda leaf: leaf[0], data)
    moved = _moved(task.problem.priors.symmetry, one, jax.random.key(2))
    fields = decode(moved.given.encoding, net.kinds, moved.fields)
    condition = moved.given.condition
    # a moved example obeys the law of motion as the example does, and is encoded as an example is
    missed = jnp.stack(list(task.problem.residual(fields, condition).values()))
    np.testing.assert_allclose(missed, 0.0, atol=2e-4)
    np.testing.assert_allclose(encode(params.given, ("linear",) * 5, condition), moved.given.channels, atol=1e-6)
    assert jnp.abs(moved.fields - one.fields).max() > 0.1


@pytest.mark.parametrize(
    ("name", "commutes"),
    [
        ("equivariant", True),
        pytest.param("priors", True, marks=pytest.mark.slow),
        pytest.param("diffusion", False, marks=pytest.mark.slow),
    ],
)
def test_samples_move_with_their_noise(springs, name, commutes):
    task, _ = springs
    fitted = fit(springs, name)
    params = fitted.params._replace(network=rough(fitted.params.network, 0.05))
    model, condition = fitted.model, jnp.asarray(task.train().condition[0])
    key, latent = jax.random.key(7), fitted.model.latent(jax.random.key(8))
    element = task.problem.priors.symmetry.draw(jax.random.key(9))
    moved_latent, moved_condition = act(element, latent, condition)
    draw = jax.jit(lambda latent, condition: model.draw(params, model.prepare(params, condition), latent, key))
    plain, moved = draw(latent, condition), draw(moved_latent, moved_condition)
    expected = act(element, plain, condition)[0]
    error = float(jnp.abs(moved - expected).max() / jnp.abs(expected).max())
    assert (error < 1e-4) == commutes
    if commutes:
        np.testing.assert_allclose(plain[..., :2].mean(axis=(0, 1)), 0.0, atol=1e-5)


@pytest.mark.slow
def test_noise_along_translations_is_neither_seen_nor_left(springs):
    task, options = springs
    fitted = fit(springs, "equivariant")
    prepared = fitted.model.prepare(fitted.params, jnp.asarray(task.train().condition[0]))
    denoise = jax.jit(fitted.model.denoise(fitted.params, prepared))
    noisy, half = jax.random.normal(jax.random.key(3), task.train().fields.shape[1:]), jnp.asarray(0.5)
    shifted = noisy + jnp.array([3.0, -2.0, 0.0, 0.0])
    np.testing.assert_allclose(denoise(noisy, half), denoise(shifted, half), atol=1e-5)
    plain = make_denoise(network_of(task, options), teacher_schedule(options), "edm")
    bare = fit(springs, "diffusion")
    seen = make_prepare(network_of(task, options))(bare.params.network, prepared.given)
    denoise = jax.jit(plain(bare.params.network, seen))
    assert jnp.abs(denoise(noisy, half) - denoise(shifted, half)).max() > 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": {"predicts": "edm", "ema_decay": 0.9, "noise": "chain"}}, 'expected training.noise "edm"'),
        ({"symmetric_network": None}, "expected the group symmetric_network"),
        ({"penalties": {"weights": {"cubic": 1.0}}}, "expected penalties.weights from zero of forms"),
        ({"penalties": {"weights": {"linear": -1.0}}}, "expected penalties.weights from zero of forms"),
    ],
)
def test_options_that_do_not_fit_are_refused(springs, change, message):
    task, options = springs
    options = {name: value for name, value in {**options, **change}.items() if value is not None}
    method = METHODS["priors" if "penalties" in change else "equivariant"]
    with pytest.raises(ValueError, match=message):
        method.fit(task, options, Trainer(), None, task.key)


class Watching(dict):
    """Options that know which groups were asked for."""

    def __init__(self, groups, seen):
        super().__init__(groups)
        self.seen = seen

    def __getitem__(self, name):
        self.seen.add(name)
        return super().__getitem__(name)

    def get(self, name, default=None):
        self.seen.add(name)
        return super().get(name, default)

    def __contains__(self, name):
        self.seen.add(name)
        return super().__contains__(name)


@pytest.mark.parametrize("name", ["augmented", "equivariant", "penalty_linear", "priors"])
def test_what_is_kept_depends_on_every_group_that_is_read(springs, name):
    """Groups that some methods alone read, `Method.own`, do not count for what others keep."""
    task, options = springs
    seen = set()
    check(task.problem, Watching(options, seen), [METHODS[name].fit])
    owned = {key for method in METHODS.values() for key in method.own}
    assert seen & owned <= set(METHODS[name].own)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["subspace", "priors"])
def test_samples_in_the_subspace_keep_the_momentum_to_rounding(springs, name):
    task, _ = springs
    fitted = fit(springs, name)
    model, params = fitted.model, fitted.params
    key, condition = jax.random.key(8), jnp.asarray(task.train().condition[0])
    drawn = jax.jit(model.draw)(params, model.prepare(params, condition), model.latent(key), key)
    momentum = drawn[..., 2:].sum(axis=1)
    assert jnp.abs(momentum).max() > 0.01
    np.testing.assert_allclose(momentum, jnp.broadcast_to(momentum[0], momentum.shape), atol=2e-5)
    centre = drawn[..., :2].mean(axis=1)
    np.testing.assert_allclose(5 * jnp.diff(centre, axis=0) / 0.1, momentum[1:], atol=2e-3)


def test_draws_have_the_momentum_of_the_given_frames():
    equations = with_given_frames(make_equations("five_springs", num_frames=6), 2)
    sample = equations.draw(jax.random.key(0))
    drawn = sample.fields + jax.random.normal(jax.random.key(1), sample.fields.shape)
    plain = Fitted(mean_model(lambda params, condition: condition, ()), None, {})
    model = _continuing(plain, equations).model
    found, truth = motion_of(model.finish(drawn, sample.condition)), motion_of(sample.fields)
    np.testing.assert_allclose(found.velocity.sum(axis=1), truth.velocity.sum(axis=1), atol=1e-10)
    np.testing.assert_allclose(found.position.mean(axis=1), truth.position.mean(axis=1), atol=1e-10)
    # what moves around the centre is the draw's
    around = lambda x: np.array(x - x.mean(axis=1, keepdims=True))  # noqa: E731
    np.testing.assert_allclose(around(found.velocity), around(motion_of(drawn).velocity), atol=1e-12)
    # a projection comes after it, and is told the same
    both = with_projection(_continuing(plain, equations), equations).model.finish(drawn, sample.condition)
    np.testing.assert_allclose(motion_of(both).velocity.sum(axis=1), truth.velocity.sum(axis=1), atol=1e-10)
    (energy,) = (of for name, of in equations.priors.invariants if name == "energy")
    np.testing.assert_allclose(jnp.ptp(energy(both, sample.condition)), 0.0, atol=1e-10)
    for told in (make_equations("five_springs"), with_given_frames(make_equations("five_springs"), 1)):
        assert _continuing(plain, told) is plain, "one frame says where, not how fast, the centre moves"


@pytest.mark.parametrize("penalties", [{"penalties": {"weights": {"linear": 0.0}}}, {}])
def test_a_penalty_without_a_weight_is_refused(springs, penalties):
    task, options = springs
    options = {name: group for name, group in options.items() if name != "penalties"} | penalties
    with pytest.raises(ValueError, match=r"expected penalties\.weights of a form among"):
        METHODS["penalty_linear"].fit(task, options, Trainer(), None, task.key)


@pytest.mark.parametrize(
    ("dtype", "tolerance", "given"),
    [
        (jnp.float64, 1e-12, 0),
        (jnp.float64, 1e-12, 2),
        (jnp.float32, 1e-5, 2),
        pytest.param(jnp.float32, 1e-5, 0, marks=pytest.mark.slow),
    ],
)
def test_the_space_time_network_commutes_to_rounding(dtype, tolerance, given):
    sizes = {name: size for name, size in NET.items() if name != "name"}
    network = make_space_time(**sizes, dimension=3, given_vectors=given)
    element = make_equations("gravity").priors.symmetry.draw(jax.random.key(1))
    noisy = jax.random.normal(jax.random.key(2), (4, 10, 7)).astype(dtype)
    drawn = jax.random.bernoulli(jax.random.key(3), 0.5, (10, 10)).astype(dtype)
    coupling = jnp.broadcast_to(drawn + drawn.T, (4, 10, 10))
    told = jax.random.normal(jax.random.key(5), (4, 10, 3 * given + bool(given))).astype(dtype)

    def move(fields, vectors):
        turned, moved = act(element, fields[..., :vectors], coupling)
        return jnp.concatenate([turned, fields[:, element.order, vectors:]], axis=-1), moved

    condition = jnp.concatenate([coupling, told], axis=-1)
    params = jax.jit(network.init)(jax.random.key(4), noisy, Condition(rollout=condition))
    params = rough(params)

    @jax.jit
    def apply(fields, condition):
        return network.apply(params, fields, jnp.asarray(0.2, dtype), Condition(rollout=condition))

    moved, moved_coupling = move(noisy, 6)
    moved_told = move(told, 3 * given)[0] if given else told
    found = apply(moved, jnp.concatenate([moved_coupling, moved_told], axis=-1))
    expected = move(apply(noisy, condition), 6)[0]
    assert float(jnp.abs(found - expected).max() / jnp.abs(expected).max()) < tolerance
    # the coupling of a node alone, not of the pair, would go unnoticed without this
    assert jnp.abs(apply(moved, jnp.concatenate([coupling, moved_told], axis=-1)) - expected).max() > 1e-3
    if given:
        assert jnp.abs(apply(moved, jnp.concatenate([moved_coupling, told], axis=-1)) - expected).max() > 1e-3
        assert jnp.abs(apply(noisy, condition.at[..., -1].add(1.0)) - apply(noisy, condition)).max() > 1e-3
