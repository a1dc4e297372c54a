"""Learn the energy of a physical system from a few observed trajectories and generate its futures, calibrated.

forecaster = fit("trajectories.npz", "vibrating_string", options="laptop")
forecaster = conformalize(forecaster, "calibration.npz", level=0.9)
futures = forecast(forecaster, state, num_samples=100)
save(forecaster, "my_string")
forecaster = load("my_string")
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

# LAPACK's own threads compete with the compiler's: small factorisations take up to 9 times as long, 60 where a core is
# busy; SciPy's LAPACK, which JAX calls, reads this when the first factorisation runs
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

if TYPE_CHECKING:
    from phdme_jax.files import InputError as InputError
    from phdme_jax.files import RunFailed as RunFailed
    from phdme_jax.forecasting.conformalize import conformalize as conformalize
    from phdme_jax.forecasting.files import InitialState as InitialState
    from phdme_jax.forecasting.files import Trajectories as Trajectories
    from phdme_jax.forecasting.fit import fit as fit
    from phdme_jax.forecasting.forecast import forecast as forecast
    from phdme_jax.forecasting.forecast_file import Forecast as Forecast
    from phdme_jax.forecasting.forecaster import Forecaster as Forecaster
    from phdme_jax.forecasting.options import make_options as make_options
    from phdme_jax.forecasting.saved import load as load
    from phdme_jax.forecasting.saved import save as save
    from phdme_jax.forecasting.sensors import Sensors as Sensors

__version__ = "0.2.0"

# loaded when first asked for, so that what needs a part of the library does not import all of it
_HOMES = {
    "fit": "forecasting.fit", "conformalize": "forecasting.conformalize", "forecast": "forecasting.forecast",
    "save": "forecasting.saved", "load": "forecasting.saved", "make_options": "forecasting.options",
    "Forecaster": "forecasting.forecaster", "Forecast": "forecasting.forecast_file",
    "Trajectories": "forecasting.files", "InitialState": "forecasting.files", "Sensors": "forecasting.sensors",
    "InputError": "files", "RunFailed": "files",
}  # fmt: skip
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
