"""A fitted forecaster, and its forecasts of many initial states in the user's units."""

import math
import time
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from phdme_jax.forecasting.bands import Calibration, Forecasts, all_finite
from phdme_jax.forecasting.files import FileLayout
from phdme_jax.forecasting.inputs import Observed
from phdme_jax.forecasting.offers import learns_step
from phdme_jax.forecasting.structures import Units, known_structure
from phdme_jax.gp.fit import dissipation_intervals
from phdme_jax.methods import draws
from phdme_jax.methods.base import Fitted, Method, Options, Start, Times
from phdme_jax.methods.energy.initial_states import smoothest_part
from phdme_jax.methods.sensors.background import Background
from phdme_jax.methods.table import METHODS
from phdme_jax.systems.energy.base import Structure
from phdme_jax.training.loop import Watch, unwatched

BLOCK = 16  # samples of a state at a time
STAGES = {"training": 3, "seen": 4, "calibration": 5, "sensors": 6}


@dataclass(frozen=True)
class Setup:
    """What a forecaster was made with: static, and all of it JSON.

    Attributes:
      structure: name of the structure.
      method: name of the method.
      seed: of all random draws.
      options: as they ran.
      units: internal units.
    """

    structure: str
    method: str
    seed: int
    options: Options
    units: Units

    def key(self, stage: str) -> Key[Array, ""]:
        """Random key of a stage of the fit; its root where the stage is empty."""
        root = jax.random.fold_in(jax.random.key(11), self.seed)
        return jax.random.fold_in(root, STAGES[stage]) if stage else root


@dataclass(frozen=True, eq=False)
class Forecaster:
    """A fitted forecaster.

    Attributes:
      setup: what it was made with.
      structure: operators, internal units.
      observed: what it remembers of the trajectories it was fitted to.
      energy: the learned energy, which integrated in time is a forecast of its own; internal units.
      fitted: the method, internal units.
      background: Gaussian over states, from which sensors are answered; internal units.
      level: of the band.
      calibration: floor and quantiles in physical units, or None where it was not calibrated.
      calibrated_on: trajectories that it was calibrated on, physical units, which calibrate a band for sensors.
      notes: sentences that the user should read.
    """

    setup: Setup
    structure: Structure
    observed: Observed
    energy: Fitted
    fitted: Fitted
    background: Background
    level: float = 0.9
    calibration: Calibration | None = None
    calibrated_on: Float[np.ndarray, "n time grid field"] | None = None
    notes: tuple[str, ...] = ()

    @property
    def layout(self) -> FileLayout:
        """What its files hold."""
        return known_structure(self.setup.structure).layout

    @property
    def method(self) -> Method:
        """How it was learned."""
        return METHODS[self.setup.method]

    @property
    def num_samples(self) -> int:
        """Samples behind the band, the same in calibration and forecast."""
        return self.setup.options["sampling"]["num_samples"]

    @property
    def dissipation(self) -> dict[str, float]:
        """Learned dissipation parameters, in the user's units."""
        units = known_structure(self.setup.structure).parameter_units(self.setup.units)
        return {name: value * units[name] for name, value in self.energy.found.items()}

    @property
    def dissipation_intervals(self) -> dict[str, tuple[float, float]]:
        """Their 90 % posterior intervals, in the user's units; nothing where a kept fit has none."""
        units = known_structure(self.setup.structure).parameter_units(self.setup.units)
        found = dissipation_intervals(self.energy.params)
        return {name: (low * units[name], high * units[name]) for name, (low, high) in found.items()}

    @property
    def is_calibrated(self) -> bool:
        """Whether it has a band of finite width that promises coverage."""
        return self.calibration is not None and math.isfinite(self.calibration.quantile)


def starts_from(states: Float[np.ndarray, "n grid field"], times: Times) -> Start:
    """Conditions of states without inputs, internal units, leaves with a leading axis."""
    return Start(np.asarray(states), np.zeros((len(states), len(times), 0)))


def forecasts_from(
    forecaster: Forecaster,
    initial: Float[np.ndarray, "n grid field"],
    num_samples: int,
    key: Key[Array, ""],
    watch: Watch = unwatched,
) -> Forecasts:
    """Forecasts of initial states; the first samples are the same however many are drawn.

    Args:
      forecaster: fitted.
      initial: initial states, physical units, boundary values imposed.
      num_samples: of each state.
      key: random key.
      watch: shows the progress.
    Returns:
      forecasts, physical units, whose first frame is the initial state exactly; not finite where a sample failed.
    """
    scale, fitted = forecaster.setup.units.scale, forecaster.fitted
    prepared = draws.prepare(fitted, starts_from(_told(forecaster, initial) / scale, fitted.model.times))
    drawn = drawn_forecasts(forecaster, fitted, prepared, num_samples, key, watch)
    mean, samples = drawn.mean, drawn.samples
    assert samples is not None
    mean[:, 0], samples[:, :, 0] = initial, initial[:, None]
    return drawn._replace(ok=all_finite(mean) & all_finite(samples))


def drawn_forecasts(
    forecaster: Forecaster, fitted: Fitted, prepared: PyTree, num_samples: int, key: Key[Array, ""], watch: Watch
) -> Forecasts:
    """Forecasts, physical units, that a method draws of what it has prepared, as many samples at a time as always.

    Args:
      forecaster: gives the units and the size of a block.
      fitted: its method, or one around it.
      prepared: by `draws.prepare`, leaves with a leading axis.
      num_samples: of each.
      key: random key.
      watch: shows the progress.
    Returns:
      forecasts; not finite where a sample failed.
    """
    began, scale, count = time.perf_counter(), forecaster.setup.units.scale, len(jax.tree.leaves(prepared)[0])
    mean = draws.means(fitted, prepared)
    assert mean is not None
    size, blocks = min(BLOCK, forecaster.num_samples), []
    with watch(None, "samples", 0, count * num_samples) as tell:
        for block in range(math.ceil(num_samples / size)):
            drawn = draws.samples(fitted, prepared, size, jax.random.fold_in(key, block))
            assert drawn is not None
            blocks.append(drawn)
            tell(count * min(num_samples, (block + 1) * size), {})
    mean, samples = mean * scale, np.concatenate(blocks, axis=1)[:, :num_samples] * scale
    seconds = (time.perf_counter() - began) / (count * num_samples)
    return Forecasts(mean, samples, all_finite(mean) & all_finite(samples), seconds)


def energy_forecasts(forecaster: Forecaster, initial: Float[np.ndarray, "n grid field"]) -> Forecasts:
    """Forecasts by the learned energy alone, integrated in time: the baseline; zeros where they are not finite."""
    scale, energy = forecaster.setup.units.scale, forecaster.energy
    prepared = draws.prepare(energy, starts_from(initial / scale, energy.model.times))
    mean = draws.means(energy, prepared)
    assert mean is not None
    return Forecasts(np.nan_to_num(mean * scale), None, all_finite(mean), 0.0)


def _told(forecaster: Forecaster, initial: np.ndarray) -> np.ndarray:
    """What the method is told of initial states.

    A learned time step is told the part in the modes that it was trained on: what is left is measurement noise or
    shorter waves, of which it knows nothing. A rollout is told the whole state.
    """
    if learns_step(forecaster.method):
        return smoothest_part(forecaster.structure, initial, forecaster.setup.options["initial"]["modes"])
    return initial
