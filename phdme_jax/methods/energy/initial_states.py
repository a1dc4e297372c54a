"""Initial states to roll out from, drawn from a prior that is made of observed frames, on grids of one axis."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from phdme_jax.systems.energy.base import Structure, constant_parts, line_parity


@dataclass(frozen=True)
class FrameMixture:
    """Numbers of `draw_initial_states`.

    Attributes:
      modes: leading sines or cosines of each field.
      shrinkage: share s of the variance with which every mode moves alone, between 0 and 1.
      frame_share: share of the draws that are observed frames.
      amplitude: lower and upper end of the scaling u.
    """

    modes: int = 16
    shrinkage: float = 0.5
    frame_share: float = 0.25
    amplitude: tuple[float, float] = (0.5, 1.2)


def mode_matrix(parity: int, num_points: int, count: int) -> Float[np.ndarray, "grid mode"]:
    """The smoothest functions of a parity about both ends: sines (-1) or cosines (+1)."""
    first = 1 if parity < 0 else 0
    mode = np.arange(first, first + min(count, num_points - 2))
    angle = np.pi * np.outer(np.arange(num_points), mode) / (num_points - 1)
    matrix = np.sin(angle) if parity < 0 else np.cos(angle)
    if parity < 0:
        matrix[[0, -1]] = 0.0  # sin(k pi) is not zero to the last bit
    return matrix


def smoothest_part(
    structure: Structure, state: Float[np.ndarray, "*batch grid field"], modes: int
) -> Float[np.ndarray, "*batch grid field"]:
    """States projected on the leading `modes` sines or cosines of each field, by least squares."""
    smooth = np.empty_like(state)
    for field, parity in enumerate(line_parity(structure)):
        matrix = mode_matrix(parity, state.shape[-2], modes)
        smooth[..., field] = state[..., field] @ (matrix @ np.linalg.pinv(matrix)).T
    return smooth


def draw_initial_states(
    structure: Structure,
    states: Float[np.ndarray, "*batch grid field"],
    count: int,
    mixture: FrameMixture,
    key: Key[Array, ""],
) -> Float[np.ndarray, "count grid field"]:
    """Initial states whose prior is made of all observed frames, each a possible initial state.

        a ~ N(0, (1 - s) A^T A / F + s diag(A^T A) / F),   x = c + u sum_k a_k phi_k,   u ~ U(amplitude)

    c is the mean of the constant parts of the frames, see `constant_parts`. A holds the amplitudes of the F frames,
    counted from c, in the leading sines (fields that vanish at the ends) and cosines (the others), all fields together,
    so that what moves together in the data does so in the draws. The shrinkage s lets every mode also move alone. A
    share of the draws is observed frames themselves, smoothed and scaled by u about c. The root of the covariance is
    the symmetric one, in units of each field's largest amplitude: there is one such root, so that draws are the same on
    every machine and in any units of a field.

    Args:
      structure: parities and boundary values.
      states: observed states.
      count: number of draws.
      mixture: numbers above.
      key: random key.
    Returns:
      initial states.
    """
    num_points, num_fields = states.shape[-2:]
    centre = constant_parts(structure, states).reshape(-1, num_fields).mean(axis=0)
    frames = states.reshape(-1, num_points, num_fields) - centre
    matrices = [mode_matrix(parity, num_points, mixture.modes) for parity in line_parity(structure)]
    by_field = [frames[..., field] @ np.linalg.pinv(matrix).T for field, matrix in enumerate(matrices)]
    amplitudes = np.concatenate(by_field, axis=-1)
    draw_key, pick_key, choice_key, size_key = jax.random.split(key, 4)
    units = np.concatenate([np.full(part.shape[1], np.abs(part).max() or 1) for part in by_field])
    together = (amplitudes / units).T @ (amplitudes / units) / len(frames)
    alone = np.diag(np.diag(together))
    variance, axes = np.linalg.eigh((1 - mixture.shrinkage) * together + mixture.shrinkage * alone)
    root = (axes * np.sqrt(np.maximum(variance, 0))) @ axes.T
    drawn = np.asarray(jax.random.normal(draw_key, (count, len(root)), jnp.float64)) @ root * units
    picked = amplitudes[np.asarray(jax.random.randint(pick_key, (count,), 0, len(frames)))]
    is_frame = np.asarray(jax.random.uniform(choice_key, (count, 1), jnp.float64)) < mixture.frame_share
    size = np.asarray(jax.random.uniform(size_key, (count, 1), jnp.float64, *mixture.amplitude))
    drawn = np.where(is_frame, picked, drawn) * size
    cuts = np.cumsum([matrix.shape[1] for matrix in matrices])[:-1]
    fields = [values @ matrix.T for values, matrix in zip(np.split(drawn, cuts, axis=1), matrices, strict=True)]
    return np.asarray(jax.vmap(structure.constrain)(jnp.asarray(np.stack(fields, axis=-1) + centre)))
