"""Every fit of known equations trains as its options say and draws as the protocol wants it."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.methods.equations import diffusion, flow, gradient_input
from phdme_jax.methods.equations.check import check
from phdme_jax.methods.equations.network import Sampling
from phdme_jax.methods.sampling.corrected import fit_corrected
from phdme_jax.systems import make_equations
from tests.methods.equations.world import EXAMPLES, OPTIONS, POISSON, Disturbing, sampled, task

FITS = {
    "diffusion": (diffusion.fit_diffusion, "diffusion", 8),
    "mean": (diffusion.fit_informed, "informed", 8),
    "sample": (partial(diffusion.fit_informed, estimation="sample"), "informed", 8),
    "hidden": (partial(diffusion.fit_informed, hides_solution=True), "informed", 8),
    "input": (gradient_input.fit_gradient_input, "diffusion", 16),
    "flow": (flow.fit_flow_matching, "flow", 10),
    "merged": (flow.fit_merged, "merged", 10),
}


def changed(**groups):
    return {**OPTIONS, **{name: {**OPTIONS[name], **changes} for name, changes in groups.items()}}


@pytest.mark.slow
def test_a_teacher_of_edm_noise_trains_and_draws():
    chosen = changed(training={"noise": "edm", "predicts": "edm"}, sampling={"sampler": "dpm", "spacing": "log_snr"})
    host = Disturbing()
    fitted = diffusion.fit_diffusion(task(), chosen, host, None, jax.random.key(7))
    example = jax.tree.map(lambda leaf: leaf[0], host.asked[0][2])
    fields = sampled(fitted, jax.random.key(0))
    assert fields.shape == (20, 2) and np.isfinite(fields).all()
    # without physics its loss is denoising alone, and not that of the chain
    _, metrics = host.asked[0][1](fitted.params.network, example, jax.random.key(3))
    assert set(metrics) == {"denoising"}


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_every_fit_trains_its_stages_and_draws_fields(name):
    fit, stages, calls = FITS[name]
    host, key = Disturbing(), jax.random.key(7)
    fitted = fit(task(), OPTIONS, host, None, key)
    assert [stage for stage, *_ in host.asked] == [f"{stages}_0", f"{stages}_1"]
    assert [numbers["rate"] for *_, numbers in host.asked] == [1e-3, 1e-4]
    train_key = jax.random.split(key)[1]
    assert [key for *_, key, _ in host.asked] == [jax.random.fold_in(train_key, index) for index in (0, 1)]
    assert fitted.model.num_calls == calls and sum(fitted.seconds.values()) == 2.0
    fields = sampled(fitted, jax.random.key(0))
    assert fields.shape == (20, 2) and fields.dtype == jnp.float32 and np.isfinite(fields).all()
    assert np.abs(fields - sampled(fitted, jax.random.key(1))).max() > 1e-3
    # every network starts from the first half of the key, and the training set is normalised
    data = host.asked[0][2]
    np.testing.assert_allclose(data.fields.std(axis=(0, 1)), 1.0, rtol=1e-5)
    assert data.fields.shape == EXAMPLES.fields.shape and data.given.encoding.scale.shape == (64, 2)


def test_the_number_of_a_stage_is_a_factor_of_the_constraints_or_counts_steps_to_the_end():
    for name, metric in (("mean", "penalty"), ("merged", "residual")):
        host = Disturbing()
        fitted = FITS[name][0](task(), OPTIONS, host, None, jax.random.key(7))
        example = jax.tree.map(lambda leaf: leaf[0], host.asked[0][2])
        first, second = (asked[1](fitted.params.network, example, jax.random.key(3))[1][metric] for asked in host.asked)
        if name == "mean":
            np.testing.assert_allclose(second, 3.0 * first, rtol=1e-5)
        else:
            assert np.abs(second / first - 1.0) > 1e-3


def test_flows_are_followed_in_the_steps_asked_for():
    few, many = (
        sampled(
            flow.fit_flow_matching(
                task(), changed(sampling={"flow_steps": steps}), Disturbing(), None, jax.random.key(7)
            ),
            jax.random.key(0),
        )
        for steps in (1, 16)
    )
    assert np.abs(few - many).max() > 1e-3


def test_flows_with_physics_start_anew_from_fresh_noise_as_published():
    fitted = flow.fit_merged(task(), OPTIONS, Disturbing(), None, jax.random.key(7))
    straight = flow.fit_flow_matching(task(), OPTIONS, Disturbing(), None, jax.random.key(7))
    ends = [sampled(one, jax.random.key(0), fitted.params) for one in (fitted, straight)]
    assert flow.RESTART_UNTIL == 0.2 and np.abs(ends[0] - ends[1]).max() > 1e-3
    # the only step of one begins at noise and goes to the end, where nothing of the fresh noise is left
    single = changed(sampling={"flow_steps": 1})
    ends = [
        sampled(fit(task(), single, Disturbing(), None, jax.random.key(7)), jax.random.key(0), fitted.params)
        for fit in (flow.fit_merged, flow.fit_flow_matching)
    ]
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-5)


WRONG = [
    ("expected 2 encodings", {"data": {"kinds": ("linear",)}}),
    ("mode among", {"training": {"predicts": "q"}}),
    ("noise among", {"training": {"noise": "pink"}}),
    ("sampler among", {"sampling": {"sampler": "fast"}}),
    ("rule among", {"sampling": {"correction_rule": "guess"}}),
    ("network among", {"network": {"name": "transformer"}}),
    ("sizes of the network unet, got .*width", {"network": {"name": "unet"}}),
    ("variance among", {"informed": {"variance": "guess"}}),
    ("batch_size >= 1", {"stages": {"diffusion": ((1.0, 2, 0, 1e-3),)}}),
]


@pytest.mark.parametrize(("message", "groups"), WRONG)
def test_options_that_cannot_be_built_are_refused_without_computing_anything(message, groups):
    with pytest.raises(ValueError, match=message):
        check(POISSON, changed(**groups), [diffusion.fit_diffusion, fit_corrected])


def test_options_that_can_be_built_pass_for_every_fit():
    for fit, *_ in FITS.values():
        check(POISSON, OPTIONS, [fit])
    with pytest.raises(ValueError, match="flow_steps"):
        check(POISSON, changed(sampling={"flow_steps": 0}), [flow.fit_flow_matching])
    with pytest.raises(ValueError, match="predicts='x0'"):
        check(POISSON, changed(training={"predicts": "v"}), [FITS["hidden"][0]])
    with pytest.raises(TypeError, match="steps"):
        Sampling(steps=3)


def test_equations_offer_what_they_have():
    assert POISSON.offers == {"residual", "map", "resolve"}
    assert make_equations("circle").offers == {"residual", "resolve"}
    assert dataclasses.replace(POISSON, resolve=None).offers == {"residual", "map"}
