"""A fitted forecaster on disk: its arrays in one `.npz`, everything static in one JSON record, both checked on loading.

FOLDER/forecaster/arrays.npz         never pickled
FOLDER/forecaster/forecaster.json    written last; holds the digest of the arrays and of itself
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from phdme_jax.files import InputError, atomic_write, config_digest, file_digest, flatten, save_arrays, unflatten
from phdme_jax.forecasting.bands import Calibration
from phdme_jax.forecasting.forecaster import Forecaster, Setup
from phdme_jax.forecasting.inputs import Observed, internal_structure
from phdme_jax.forecasting.precision import in_double_precision
from phdme_jax.forecasting.structures import Units
from phdme_jax.gp.basis import Box, Energy
from phdme_jax.gp.fit import EnergyPosterior, Hyperparameters
from phdme_jax.methods.base import Fitted, Normaliser
from phdme_jax.methods.energy.conditional import Design, Fields, GeneratorParams, make_model
from phdme_jax.methods.energy.gp_rollout import fitted_rollout
from phdme_jax.methods.energy.options import read_options
from phdme_jax.methods.energy.posterior import PriorOptions, make_basis
from phdme_jax.methods.sensors.background import Background
from phdme_jax.systems.energy.base import Structure

FORMAT = 6
_OBSERVED = ("time", "grid", "scale", "centre", "excursion", "projections")
FOLDER, ARRAYS, RECORD = "forecaster", "arrays.npz", "forecaster.json"


@in_double_precision
def save(forecaster: Forecaster, folder: Path | str) -> Path:
    """Writes a forecaster; its record comes last, so that a reader sees all of it or nothing.

    Args:
      forecaster: fitted, calibrated or not.
      folder: made if missing; a forecaster in it is replaced.
    Returns:
      where the files are, `folder/forecaster`.
    Raises:
      InputError, RunFailed: the folder cannot be written.
    """
    place = Path(folder) / FOLDER
    setup, observed, fitted = forecaster.setup, forecaster.observed, forecaster.fitted
    arrays = {
        "observed": {name: getattr(observed, name) for name in _OBSERVED},
        "energy": nested(forecaster.energy.params),
        # the energy is there already
        "generator": nested(fitted.params._replace(energy=None)),
        "background": nested(forecaster.background),
    }
    calibration = None
    if forecaster.calibration is not None:
        calibration = forecaster.calibration._asdict()
        arrays["calibration"] = {"floor": calibration.pop("floor"), "trajectories": forecaster.calibrated_on}
    save_arrays(place / ARRAYS, flatten(arrays, "/"))
    record = {
        "format": FORMAT,
        "setup": asdict(setup),
        "trajectories": list(observed.digests),
        "level": forecaster.level,
        "calibration": calibration,
        "notes": list(forecaster.notes),
        "found": {"energy": forecaster.energy.found, "method": fitted.found},
        "seconds": {"energy": forecaster.energy.seconds, "method": fitted.seconds},
        "arrays_digest": file_digest(place / ARRAYS),
    }
    record["digest"] = config_digest(record)
    with atomic_write(place / RECORD) as file:
        file.write((json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n").encode("utf-8"))
    return place


@in_double_precision
def load(folder: Path | str) -> Forecaster:
    """Reads a forecaster.

    Args:
      folder: what `save` was given, or the run folder of a finished `phdme fit`.
    Returns:
      the forecaster.
    Raises:
      InputError: there is none, it is damaged, or another version of this library wrote it.
    """
    place = Path(folder) / FOLDER
    record = _read_record(place / RECORD)
    if file_digest(place / ARRAYS) != record["arrays_digest"]:
        raise InputError(f"{place / ARRAYS}: is damaged or was changed; fit again in a new folder")
    try:
        with np.load(place / ARRAYS, allow_pickle=False) as archive:
            arrays = unflatten({name: archive[name] for name in archive.files}, "/")
        return _build(record, arrays)
    except Exception as error:  # what somebody else has written can be wrong in any way
        raise InputError(f"{place}: cannot be put together ({error}); fit again in a new folder") from None


def _read_record(path: Path) -> dict[str, Any]:
    if not path.is_file():
        unfinished = (path.parent.parent / "config.json").exists()
        advice = "the fit there has not finished, give its command again" if unfinished else "expected that of a fit"
        raise InputError(f"{path.parent.parent}: holds no fitted forecaster; {advice}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        found, digest = record["format"], record.pop("digest")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path}: is damaged; fit again in a new folder") from None
    if found != FORMAT:
        raise InputError(
            f"{path}: has format {found}, and this version reads format {FORMAT}; fit again with this version"
        )
    if digest != config_digest(record):
        raise InputError(f"{path}: is damaged or was changed; fit again in a new folder")
    return record


def _build(record: dict[str, Any], arrays: dict[str, Any]) -> Forecaster:
    static = _tuples(record["setup"])
    setup = Setup(**static | {"units": Units(**static["units"])})
    observed = Observed(**arrays["observed"], digests=tuple(record["trajectories"]))
    structure = internal_structure(setup.structure, observed.grid.size, setup.options["structure"])
    energy = _energy(setup, structure, observed, arrays["energy"])
    fitted = _generator(setup, structure, energy, arrays["generator"])
    found, seconds, kept = record["found"], record["seconds"], record["calibration"]
    return Forecaster(
        setup=setup,
        structure=structure,
        observed=observed,
        energy=energy._replace(found=found["energy"], seconds=seconds["energy"]),
        fitted=fitted._replace(found=found["method"], seconds=seconds["method"]),
        background=Background(**arrays["background"]),
        level=record["level"],
        calibration=None if kept is None else Calibration(floor=arrays["calibration"]["floor"], **kept),
        calibrated_on=None if kept is None else arrays["calibration"]["trajectories"],
        notes=tuple(record["notes"]),
    )


def _energy(setup: Setup, structure: Structure, observed: Observed, arrays: Mapping[str, Any]) -> Fitted:
    prior = PriorOptions(**setup.options["prior"])
    basis, times = make_basis(structure, prior), setup.units.frames(observed.time)
    return fitted_rollout(structure, basis, posterior_from(arrays), times, prior.substeps, 0.0)


def _generator(setup: Setup, structure: Structure, energy: Fitted, arrays: Mapping[str, Any]) -> Fitted:
    """The generator whose arrays these are: they say whether it has a learned step."""
    options, fields, dynamics = read_options(setup.options), Fields(structure), energy.model.dynamics
    assert dynamics is not None
    arrays = jax.device_put(dict(arrays))  # `jnp.asarray` would compile a program for every shape
    empty = dict.fromkeys(GeneratorParams._fields)
    params = GeneratorParams(**{**empty, **arrays, "normaliser": Normaliser(**arrays["normaliser"])})
    propagator = None
    if params.propagator is not None:
        propagator = options.network.make_propagator(fields.parity, observed=False)
    else:
        params = params._replace(energy=energy.params)
    times, denoiser = energy.model.times, options.network.make_denoiser()
    design = Design(
        fields, times, times, propagator, denoiser, options.num_steps, dynamics=dynamics, substeps=dynamics.substeps
    )
    return Fitted(make_model(design), params, {})


def nested(tree: Any) -> Any:
    """Named tuples as mappings at every depth, without what is None."""
    if hasattr(tree, "_asdict"):
        tree = tree._asdict()
    if isinstance(tree, Mapping):
        return {name: nested(value) for name, value in tree.items() if value is not None}
    return np.asarray(tree)


def posterior_from(arrays: Mapping[str, Any]) -> EnergyPosterior:
    """The posterior whose `nested` arrays these are."""
    arrays = jax.device_put(dict(arrays))
    mean = arrays["mean"]
    return EnergyPosterior(
        mean=Energy(Box(**mean["box"]), mean["stiffness"], mean["weights"]),
        factor=arrays["factor"],
        parameters=arrays.get("parameters", {}),
        hyperparameters=Hyperparameters(**arrays["hyperparameters"]),
        objective=arrays["objective"],
        ok=arrays["ok"],
        spread=arrays.get("spread", {}),
    )


def _tuples(value: Any) -> Any:
    """JSON lists as tuples, at every depth."""
    if isinstance(value, Mapping):
        return {name: _tuples(inner) for name, inner in value.items()}
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list) else value
