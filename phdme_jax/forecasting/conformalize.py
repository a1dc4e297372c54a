"""Split conformal calibration of a forecaster, on trajectories that trained nothing."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from phdme_jax.calibration import minimum_calibration_size
from phdme_jax.files import InputError
from phdme_jax.forecasting import bands
from phdme_jax.forecasting.bands import Forecasts
from phdme_jax.forecasting.files import TrajectorySource
from phdme_jax.forecasting.forecaster import Forecaster, energy_forecasts, forecasts_from
from phdme_jax.forecasting.inputs import check_memory, read_calibration
from phdme_jax.forecasting.offers import learns_step, offered_methods
from phdme_jax.forecasting.precision import in_double_precision
from phdme_jax.methods.table import METHODS
from phdme_jax.training.loop import Watch, unwatched

MUCH_WORSE = 10.0


@in_double_precision
def conformalize(
    forecaster: Forecaster, trajectories: TrajectorySource, level: float = 0.9, *, watch: Watch = unwatched
) -> Forecaster:
    """The forecaster with a band that holds whole trajectories with at least the probability `level`.

    The promise is over calibration and new trajectory together, as long as the new one is exchangeable with those.

    Args:
      forecaster: from `fit`.
      trajectories: of the same frames and grid, of which none was fitted to: file, arrays or record.
      level: probability.
      watch: shows the progress, see `phdme_jax.training.loop`.
    Returns:
      a new forecaster; its notes say what came of it.
    Raises:
      InputError: any defect of the trajectories, a level that is none, or too few trajectories for it.
    """
    check_level(level)
    found, notes = read_calibration(trajectories, forecaster.layout, forecaster.structure, forecaster.observed)
    least = minimum_calibration_size(level)
    if len(found.state) < least:
        raise InputError(
            f"{len(found.state)} calibration trajectories are too few for a level of {level:g}, which takes at least "
            f"{least}; add trajectories or lower the level"
        )
    check_memory(found.state.shape, forecaster.setup.options, len(found.state))
    forecasts = calibration_forecasts(forecaster, found.state, watch)
    return calibrate(replace(forecaster, notes=(*forecaster.notes, *notes)), found.state, forecasts, level)


def check_level(level: float) -> None:
    """Raises InputError for what is no level."""
    try:
        minimum_calibration_size(level)
    except ValueError as error:
        raise InputError(str(error)) from error


def calibration_forecasts(
    forecaster: Forecaster, truth: Float[np.ndarray, "n time grid field"], watch: Watch = unwatched
) -> Forecasts:
    """Forecasts of calibration trajectories, finite; those that failed are marked."""
    key = forecaster.setup.key("calibration")
    return bands.finite(forecasts_from(forecaster, truth[:, 0], forecaster.num_samples, key, watch))


def score_floor(forecaster: Forecaster) -> Float[np.ndarray, " field"]:
    """Spread below which samples say nothing, physical units."""
    fitted = forecaster.fitted
    assert fitted.model.floor is not None
    return np.asarray(fitted.model.floor(fitted.params), np.float64) * forecaster.setup.units.scale


def calibrate(
    forecaster: Forecaster, truth: Float[np.ndarray, "n time grid field"], forecasts: Forecasts, level: float
) -> Forecaster:
    """The forecaster calibrated on trajectories and its forecasts of them, with notes on what came of it.

    Raises:
      ValueError: too few trajectories for the level.
    """
    calibration = bands.calibrate(truth, forecasts, score_floor(forecaster), level)
    forecaster = replace(forecaster, level=level, calibration=calibration, calibrated_on=truth)
    notes, share = [], f"{100 * level:g} %"
    if not forecaster.is_calibrated:
        notes.append(
            f"not calibrated: too many forecasts of the {len(truth)} calibration trajectories diverged for a {share} "
            "band"
        )
    rolled = energy_forecasts(forecaster, truth[:, 0])
    errors = [float(np.mean(((made.mean - truth) / forecaster.setup.units.scale) ** 2)) for made in (forecasts, rolled)]
    others = [name for name in offered_methods() if not learns_step(METHODS[name])]
    if rolled.ok.all() and errors[0] > MUCH_WORSE * errors[1] and learns_step(forecaster.method):
        notes.append(
            f"on the calibration trajectories the mean squared error is {errors[0] / errors[1]:.2g} times that of the "
            f"learned energy integrated in time; try the method {' or '.join(others)}, which starts from the latter, "
            "or train for longer"
        )
    return replace(forecaster, notes=(*forecaster.notes, *notes))
