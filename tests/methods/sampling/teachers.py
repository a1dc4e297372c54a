"""Diffusion models whose denoiser is the exact one of a Gaussian world."""

from phdme_jax.diffusion.schedule import SteppedCosineSchedule
from phdme_jax.methods.base import Fitted
from phdme_jax.methods.equations import network as shared
from tests import oracles


def exact_diffusion(net, world, params):
    """The fitted model; the world is that of its normalised fields, and nothing is drawn without guidance."""
    exact = oracles.exact_denoiser(world, SteppedCosineSchedule(num_levels=100))
    model = shared.make_model(
        net,
        lambda network, given: shared.Prepared(given, None),
        lambda network, prepared: exact,
        lambda denoise, latent, key: latent,
        0,
    )
    return Fitted(model, params, {})
