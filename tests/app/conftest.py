"""The files and the tiny fit of `tests.forecasting`."""

from tests.forecasting.conftest import files as files
from tests.forecasting.conftest import tiny_fit as tiny_fit
