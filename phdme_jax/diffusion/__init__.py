"""Diffusion: schedule, preconditioning, networks, loss, samplers, guidance; per example and in normalised units."""

from collections.abc import Callable

from phdme_jax.diffusion.dilated import make_dilated
from phdme_jax.diffusion.exact import make_empirical_network, make_exact_network
from phdme_jax.diffusion.mlp import make_mlp
from phdme_jax.diffusion.networks import Network
from phdme_jax.diffusion.space_time import make_space_time
from phdme_jax.diffusion.unet import make_unet

NETWORKS: dict[str, Callable[..., Network]] = {
    "unet": make_unet,
    "dilated": make_dilated,
    "mlp": make_mlp,
    "space_time": make_space_time,
    "exact": make_exact_network,
    "empirical": make_empirical_network,
}
