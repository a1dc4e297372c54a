"""Samples around given means: the scale that is told from a mean is the one that its samples have."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments import generators
from phdme_jax.diffusion.networks import Condition
from phdme_jax.methods import make_method
from phdme_jax.methods.base import fit_normaliser
from phdme_jax.methods.spread import init_spread
from phdme_jax.systems.oscillators import oscillator_structure

UNET = {"channels": 8, "multipliers": (1, 2), "num_blocks": 1, "embedding_size": 16, "heads": 0}


def test_samples_are_spread_by_the_scale_told_from_their_own_mean():
    structure, times = oscillator_structure("driven", driven=True), tuple(np.linspace(0.0, 1.0, 16).tolist())
    network = {"unet": UNET, "propagator": {"radius": 0, "width": 8, "depth": 1}}
    dynamics = generators.Dynamics(lambda state: state, lambda initial: initial)
    generator = generators.make_generator(
        make_method("phdme_rollout"), None, structure, times, network, {"num_steps": 3}, dynamics
    )
    means = np.random.default_rng(0).standard_normal((3, 16, 2)).astype(np.float32)
    means *= np.array([1.0, 3.0, 9.0], np.float32)[:, None, None]
    condition = Condition(jnp.asarray(means[0, 0]), jnp.asarray(means[0]))
    base = np.full((16, 2), 0.1, np.float32)
    spread = init_spread(jnp.asarray(means[0]), jax.random.key(2))
    plain = generators.with_arrays(
        generator, normaliser=fit_normaliser(jnp.asarray(means)), scale=jnp.asarray(base),
        denoiser=generator.denoiser.init(jax.random.key(1), jnp.asarray(means[0]), condition),
    )  # fmt: skip
    # g is no longer zero: larger means are told to leave more
    told = jax.tree.map(lambda leaf: leaf + 0.05, spread)
    told = generators.with_arrays(plain, spread=told)
    known = generators.known_values(structure, times)
    scale = np.asarray(plain.arrays["normaliser"].scale)

    def remainders(which):
        samples = generators.sample_around(which, known, means, 4, jax.random.key(3))
        return (samples - means[:, None])[:, :, 1:] / scale

    expected = np.asarray(generators._scales(told, means / scale))[:, None, 1:] / base[1:]
    assert expected.min() > 1.01 and expected.std() > 0.01
    # an untrained denoiser says nothing of the mean: the same draws, in another scale
    np.testing.assert_allclose(remainders(told), remainders(plain) * expected, rtol=2e-3, atol=1e-5)
