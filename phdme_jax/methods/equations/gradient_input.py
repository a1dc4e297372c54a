"""A diffusion model whose network is told the gradient of the residual at the noisy fields."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Key, PyTree

from phdme_jax.diffusion.preconditioning import Denoise, precondition
from phdme_jax.methods.base import Fitted, Host, Options, Task
from phdme_jax.methods.equations import network as shared
from phdme_jax.methods.equations.constraints import Constraints, residual_gradient, residual_of
from phdme_jax.methods.equations.diffusion import make_model, make_schedule
from phdme_jax.methods.equations.informed import Informed, informed_loss
from phdme_jax.methods.equations.network import EncodedExample, EquationNetwork, Given, Prepared, Recipe, condition_of

NULL_SHARE = 0.1  # of training examples whose gradient is left out
GUIDANCE = 3.0  # weight of the denoiser that sees the gradient over the one that does not, at sampling

SeeingDenoise = Callable[[PyTree, Given, Array | float], Denoise]


def make_seeing(net: EquationNetwork, informed: Informed, predicts: str) -> SeeingDenoise:
    """Denoiser told the gradient: (parameters of the network, given, sees) -> denoiser; zero for `sees` hides it."""
    denoiser = precondition(net.network, make_schedule(informed), predicts)

    def seeing(network: PyTree, given: Given, sees: Array | float) -> Denoise:
        residual = residual_of(net.equations, net.kinds, given.encoding, given.condition)

        def denoise(noisy: Array, t: Array) -> Array:
            gradient = sees * residual_gradient(residual, noisy)
            return denoiser.apply(network, noisy, t, denoiser.encode(network, condition_of(given.channels, gradient)))

        return denoise

    return seeing


def make_loss(net: EquationNetwork, seeing: SeeingDenoise, informed: Informed) -> shared.Loss:
    """Denoising loss, the gradient hidden from some examples: (parameters, example, key) -> (loss, metrics)."""

    def loss(network: PyTree, example: EncodedExample, key: Array) -> tuple[Array, dict[str, Array]]:
        loss_key, null_key = jax.random.split(key)
        sees = (jax.random.uniform(null_key) >= NULL_SHARE).astype(example.fields.dtype)
        denoise = seeing(network, example.given, sees)
        return informed_loss(denoise, make_schedule(informed), example.fields, Constraints(), informed, loss_key)

    return loss


def fit_gradient_input(task: Task, options: Options, host: Host, teacher: Fitted | None, key: Key[Array, ""]) -> Fitted:
    """Denoising with the gradient of the residual as an input, guided by it without a classifier.

        x0_hat = (1 - g) x0_hat(noisy, 0) + g x0_hat(noisy, gradient),   g = 3

    Two calls of the network a step.
    Source: Shu, Li, Barati Farimani (2023), J. Comput. Phys. 478, section 3.3.
    """
    del teacher
    informed = Informed(**options["informed"])

    def recipe(net: EquationNetwork) -> Recipe:
        seeing = make_seeing(net, informed, options["training"]["predicts"])

        def guided(network: PyTree, prepared: Prepared) -> Denoise:
            blind, sees = (seeing(network, prepared.given, share) for share in (0.0, 1.0))
            return lambda noisy, t: (1.0 - GUIDANCE) * blind(noisy, t) + GUIDANCE * sees(noisy, t)

        model = make_model(
            net, make_schedule(informed), options, guided, lambda _, given: Prepared(given, None), calls_a_step=2
        )
        return Recipe("diffusion", lambda number: make_loss(net, seeing, informed), model, sees_gradient=True)

    return shared.fit_recipe(recipe, task, options, host, key)
