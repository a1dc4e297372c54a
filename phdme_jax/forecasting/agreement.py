"""Whether measurements agree with a structure: they move, their ends are still, the fields drive one another.

And whether each of them is one of its own.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from phdme_jax.files import InputError
from phdme_jax.forecasting.files import Trajectories
from phdme_jax.gp.observations import frame_rule
from phdme_jax.methods.energy.initial_states import smoothest_part
from phdme_jax.numerics.quadrature import integrate
from phdme_jax.systems.energy.base import Structure, line_parity, zero_parameters

LARGEST_UNIT = 1e30
ENDS_SILENT, ENDS_REFUSED = 0.05, 0.25
COPY_TOLERANCE, NUM_PROJECTIONS = 1e-3, 32


def check_scale(where: str, structure: Structure, trajectories: Trajectories) -> np.ndarray:
    """Root mean square of each field; refuses what does not move and units that numbers cannot carry."""
    with np.errstate(over="ignore"):
        scale = np.sqrt(np.mean(trajectories.state**2, axis=(0, 1, 2)))
    for field, value in zip(structure.fields, scale, strict=True):
        if not value > 0:
            raise InputError(f"{where}: {field} is zero everywhere; expected trajectories that move")
    sizes = dict(zip(structure.fields, scale, strict=True))
    sizes |= {"time": np.ptp(trajectories.time), "grid": np.ptp(trajectories.grid[0])}
    for quantity, value in sizes.items():
        if not 1 / LARGEST_UNIT < value < LARGEST_UNIT:
            raise InputError(
                f"{where}: {quantity} has values around {value:.3g}; choose a unit that brings them nearer one"
            )
    return scale


def check_ends(where: str, structure: Structure, state: np.ndarray, scale: np.ndarray) -> list[str]:
    """Compare what must vanish at the ends with the root mean square of its field.

    Args:
      where: file, for messages.
      structure: gives the fields that vanish at the ends.
      state: any number of states, shape (..., grid, field).
      scale: root mean square of each field over the observed trajectories.
    Returns:
      a sentence where the ends move a little, nothing where they move no more than noise would.
    Raises:
      InputError: the ends move.
    """
    notes = []
    for field, (name, parity) in enumerate(zip(structure.fields, line_parity(structure), strict=True)):
        if parity > 0:
            continue
        share = float(np.sqrt(np.mean(state[..., [0, -1], field] ** 2)) / scale[field])
        found = f"{where}: {name} at the ends is {100 * share:.3g} % of its root mean square"
        if share > ENDS_REFUSED:
            raise InputError(f"{found}, but {structure.name} has fixed ends, where it vanishes; check the grid's ends")
        if share > ENDS_SILENT:
            notes.append(f"{found}; it was set to zero there, as {structure.name} has fixed ends")
    return notes


def check_motion(where: str, structure: Structure, trajectories: Trajectories) -> tuple[np.ndarray, float]:
    """What `rest_stiffness` finds; refuses trajectories that do not move as the structure says."""
    try:
        stiffness, explained = rest_stiffness(structure, trajectories.state, trajectories.time)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
    if not (stiffness > 0).all():
        found = ", ".join(f"{field} {value:.3g}" for field, value in zip(structure.fields, stiffness, strict=True))
        raise InputError(
            f"{where}: the fields do not move as those of {structure.name} (the stiffnesses that fit best are {found}, "
            "expected positive ones); check the order of the fields, their signs and the units of time and grid"
        )
    return stiffness, explained


def rest_stiffness(
    structure: Structure, state: np.ndarray, time: np.ndarray, modes: int = 12
) -> tuple[np.ndarray, float]:
    """Stiffness of each field that explains the motion best, without dissipation: kappa in x_t = J (kappa x).

        x(t_{k+1}) - x(t_k) = sum_a kappa_a int J (one_a x_a) dt,   least squares on the smoothest modes

    Args:
      structure: operators.
      state: trajectories, (sample, time, grid, field).
      time: their times.
      modes: modes in space kept, so that noise is not differentiated.
    Returns:
      kappa, shape (field,), negative where the data do not move as the structure says; and the share of the motion's
      variance that it explains.
    """
    count, smooth = state.shape[-1], smoothest_part(structure, state, modes)
    parameters = zero_parameters(structure, jnp.float64)
    apply = jax.vmap(jax.vmap(lambda efforts: structure.flow(efforts, parameters)))
    rule, resolved, _ = frame_rule(time - time[0], smooth)
    integrals = jax.vmap(lambda rates: integrate(rule, rates)[resolved])
    change = np.diff(smooth, axis=1)[:, resolved]
    scale = np.maximum(np.sqrt(np.mean(change**2, axis=(0, 1, 2))), np.finfo(float).tiny)
    columns = []
    for field in range(count):
        rates = apply(jnp.asarray(smooth * (np.arange(count) == field)))
        columns.append(np.asarray(integrals(rates)) / scale)
    design = np.stack([column.ravel() for column in columns], axis=-1)
    # columns of very different size (units of the user) would spoil the rank decision
    size = np.maximum(np.linalg.norm(design, axis=0), np.finfo(float).tiny)
    wanted = (change / scale).ravel()
    solution = np.linalg.lstsq(design / size, wanted)[0]
    missed = wanted - design / size @ solution
    return solution / size, float(1 - missed @ missed / (wanted @ wanted))


def project(state: Float[np.ndarray, "sample time grid field"]) -> Float[np.ndarray, "sample projection"]:
    """A few random projections of each trajectory, about as far apart as the trajectories, and, last, its size.

    Args:
      state: in units of each field's scale.
    Returns:
      projections on fixed directions, and the size of those of the trajectory less its mean.
    """
    random = np.random.default_rng(0)
    directions = [random.standard_normal((NUM_PROJECTIONS, length)) for length in state.shape[1:]]
    moving = state - state.mean(axis=(1, 2), keepdims=True)
    whole, changing = (np.einsum("stgf,kt,kg,kf->sk", part, *directions, optimize=True) for part in (state, moving))
    return np.concatenate([whole, np.linalg.norm(changing, axis=1, keepdims=True)], axis=1)


def check_copies(where: str, found: np.ndarray, trained: np.ndarray | None = None) -> None:
    """Refuses trajectories that repeat others: they are no evidence of their own.

    Args:
      where: what they are called in messages.
      found: their projections, see `project`.
      trained: projections of those that none may repeat; None for the earlier ones of their own set.
    Raises:
      InputError: which of them repeat which.
    """
    pairs = []
    for index, row in enumerate(found):
        others = found[:index] if trained is None else trained
        apart = np.linalg.norm(others[:, :-1] - row[:-1], axis=1)
        pairs += [f"{index} repeats {first}" for first in np.flatnonzero(apart <= COPY_TOLERANCE * row[-1])[:1]]
    if pairs:
        whose, wanted = "", "of their own"
        if trained is not None:
            whose, wanted = " of the data the prior learns from", "that trained nothing"
        more = f" and {len(pairs) - 10} more" if len(pairs) > 10 else ""
        raise InputError(
            f"{where}: to a thousandth of its size trajectory {', '.join(pairs[:10])}{more}{whose}; expected "
            f"trajectories {wanted}, leave copies out"
        )
