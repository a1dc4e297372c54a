"""A fitted forecaster on disk: its arrays in one `.npz`, everything static in one JSON record, both checked on loading.

RUN/forecaster/arrays.npz         never pickled
RUN/forecaster/forecaster.json    written last; holds the digest of the arrays and of itself
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from phdme_jax.files import InputError, atomic_write, config_digest, file_digest
from phdme_jax.forecasting.bands import Calibration
from phdme_jax.forecasting.files import FileLayout
from phdme_jax.forecasting.inputs import STRUCTURES, Units
from phdme_jax.gp.basis import Basis, Box, Energy
from phdme_jax.gp.fit import EnergyPosterior, Hyperparameters
from phdme_jax.methods.base import Normaliser
from phdme_jax.methods.energy import generator as generators
from phdme_jax.methods.energy import prior as priors
from phdme_jax.methods.legacy import make_method
from phdme_jax.systems.energy.base import Structure

FORMAT = 3
FOLDER, ARRAYS, RECORD = "forecaster", "arrays.npz", "forecaster.json"
TRAINED = ("propagator", "denoiser", "spread", "amplitude")


@dataclasses.dataclass(frozen=True)
class Forecaster:
    """A fitted forecaster and what it needs to speak the user's units.

    Attributes:
      name: of the structure.
      options: arguments of the structure's builder, internal units.
      units: internal units.
      time: times of the frames, physical.
      grid: grid points, physical.
      generator: the trained generator with its prior, internal units.
      network: sizes of the networks.
      num_samples: samples behind the mean and the band, the same in calibration and forecast.
      modes: modes in space of the initial states that trained the generator.
      scale: root mean square of each field over the observed trajectories, physical.
      excursion: largest absolute value of each field there, physical.
      level: of the band.
      calibration: floor and quantiles in physical units, or None where there was nothing to calibrate on.
      digest: of the configuration and the data of the fit.
    """

    name: str
    options: dict[str, Any]
    units: Units
    time: np.ndarray
    grid: np.ndarray
    generator: generators.Generator
    network: dict[str, Any]
    num_samples: int
    modes: int
    scale: np.ndarray
    excursion: np.ndarray
    level: float
    calibration: Calibration | None
    digest: str

    @property
    def prior(self) -> priors.Prior:
        """The learned energy."""
        assert self.generator.prior is not None
        return self.generator.prior

    @property
    def structure(self) -> Structure:
        """Its structure, internal units."""
        return self.prior.structure

    @property
    def layout(self) -> FileLayout:
        """What its files hold."""
        return STRUCTURES[self.name].layout


def save_forecaster(run: Path, forecaster: Forecaster) -> Path:
    """Writes a forecaster below a run folder; the record comes last, so that a reader sees all of it or nothing.

    Args:
      run: the run folder.
      forecaster: the forecaster.
    Returns:
      folder of the forecaster.
    """
    folder, generator = Path(run) / FOLDER, forecaster.generator
    (folder / RECORD).unlink(missing_ok=True)
    arrays = {
        "time": forecaster.time,
        "grid": forecaster.grid,
        "field_scale": forecaster.scale,
        "field_excursion": forecaster.excursion,
        "posterior": posterior_arrays(forecaster.prior.posterior),
        "normaliser": generator.arrays["normaliser"].scale,
        "residual_scale": generator.arrays["scale"],
        **{name: generator.arrays[name] for name in TRAINED if name in generator.arrays},
    }
    calibration = None
    if forecaster.calibration is not None:
        arrays["floor"] = forecaster.calibration.floor
        calibration = {name: value for name, value in forecaster.calibration._asdict().items() if name != "floor"}
    priors.save_arrays(folder / ARRAYS, flatten(arrays))
    record = {
        "format": FORMAT,
        "structure": forecaster.name,
        "options": forecaster.options,
        "units": dataclasses.asdict(forecaster.units),
        "method": generator.method.name,
        "basis": dataclasses.asdict(forecaster.prior.basis),
        "substeps": forecaster.prior.substeps,
        "network": forecaster.network,
        "sampling": {"num_steps": generator.sampler_steps},
        "num_samples": forecaster.num_samples,
        "modes": forecaster.modes,
        "level": forecaster.level,
        "calibration": calibration,
        "fit_digest": forecaster.digest,
        "arrays_digest": file_digest(folder / ARRAYS),
    }
    record["digest"] = config_digest(record)
    with atomic_write(folder / RECORD) as file:
        file.write((json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n").encode("utf-8"))
    return folder


def load_forecaster(run: Path | str) -> Forecaster:
    """Loads the forecaster of a run folder.

    Args:
      run: the run folder of a finished fit.
    Returns:
      the forecaster.
    Raises:
      InputError: there is none, it is damaged, or another version of this library wrote it.
    """
    folder = Path(run) / FOLDER
    record = _read_record(Path(run))
    if file_digest(folder / ARRAYS) != record["arrays_digest"]:
        raise InputError(f"{folder / ARRAYS}: is damaged or was changed; run the fit again in a new folder")
    with np.load(folder / ARRAYS, allow_pickle=False) as archive:
        arrays = unflatten({name: archive[name] for name in archive.files})
    try:
        return _build(record, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder}: cannot be put together ({error}); run the fit again in a new folder") from None


def _read_record(run: Path) -> dict[str, Any]:
    path = run / FOLDER / RECORD
    if not path.is_file():
        state = "the fit there has not finished, give its command again" if (run / "config.json").exists() else ""
        advice = state or "expected the --workdir of python -m experiments.fit"
        raise InputError(f"{run}: holds no fitted forecaster; {advice}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        found, digest = record["format"], record.pop("digest")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: is damaged; run the fit again in a new folder") from None
    if found != FORMAT:
        raise InputError(
            f"{path}: has format {found}, and this version reads format {FORMAT}; run the fit again with this version"
        )
    if digest != config_digest(record):
        raise InputError(f"{path}: is damaged or was changed; run the fit again in a new folder")
    return record


def _build(record: dict[str, Any], arrays: dict[str, Any]) -> Forecaster:
    name, options = record["structure"], _tuples(record["options"])
    structure = STRUCTURES[name].build(**options)
    units = Units(**_tuples(record["units"]))
    basis = Basis(**_tuples(record["basis"]))
    prior = priors.Prior(structure, basis, posterior_from(arrays["posterior"]), record["substeps"], 0.0)
    network = _tuples(record["network"])
    method = make_method(record["method"])
    generator = generators.make_generator(
        method, prior, structure, units.frames(arrays["time"]), network, record["sampling"]
    )
    trained = {key: as_jax(arrays[key]) for key in TRAINED if key in arrays}
    generator = generators.with_arrays(
        generator,
        normaliser=Normaliser(jnp.asarray(arrays["normaliser"])),
        scale=jnp.asarray(arrays["residual_scale"]),
        **trained,
    )
    kept = record["calibration"]
    return Forecaster(
        name=name,
        options=options,
        units=units,
        time=arrays["time"],
        grid=arrays["grid"],
        generator=generator,
        network=network,
        num_samples=record["num_samples"],
        modes=record["modes"],
        scale=arrays["field_scale"],
        excursion=arrays["field_excursion"],
        level=record["level"],
        calibration=None if kept is None else Calibration(floor=arrays["floor"], **kept),
        digest=record["fit_digest"],
    )


def is_calibrated(calibration: Calibration | None) -> bool:
    """Whether there is a band of finite width."""
    return calibration is not None and math.isfinite(calibration.quantile)


def posterior_arrays(posterior: EnergyPosterior) -> dict[str, Any]:
    """The posterior as nested dicts of arrays."""
    mean = posterior.mean
    box = {name: value for name, value in mean.box._asdict().items() if value is not None}
    return posterior._asdict() | {
        "mean": {"box": box, "stiffness": mean.stiffness, "weights": mean.weights},
        "hyperparameters": posterior.hyperparameters._asdict(),
    }


def posterior_from(arrays: Mapping[str, Any]) -> EnergyPosterior:
    """The posterior from nested dicts of arrays."""
    arrays = as_jax(dict(arrays))
    mean = arrays["mean"]
    return EnergyPosterior(
        mean=Energy(Box(**mean["box"]), mean["stiffness"], mean["weights"]),
        factor=arrays["factor"],
        parameters=arrays.get("parameters", {}),
        hyperparameters=Hyperparameters(**arrays["hyperparameters"]),
        objective=arrays["objective"],
        ok=arrays["ok"],
    )


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """Nested dicts of arrays as one dict with names joined by slashes."""
    flat: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = np.asarray(value)
    return flat


def unflatten(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The reverse of `flatten`."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, last = name.split("/")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return tree


def as_jax(tree: Any) -> Any:
    """Nested dicts of arrays on the device, types kept."""
    if isinstance(tree, Mapping):
        return {name: as_jax(value) for name, value in tree.items()}
    return jnp.asarray(tree)


def _tuples(value: Any) -> Any:
    """JSON lists as tuples, at every depth."""
    if isinstance(value, Mapping):
        return {name: _tuples(inner) for name, inner in value.items()}
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list) else value
