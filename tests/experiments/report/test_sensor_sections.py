"""What the report of forecasts from sensors takes from rows."""

from experiments.report.sensors import cost_points
from phdme_jax.app.rows import ResultRow


def row(method, seed, metric, value, calls=None, split="sensors_4"):
    settings = {} if calls is None else {"sensors.num_calls": calls}
    return ResultRow("s", "case", method, seed, split, metric, value, None, 4, "1", settings)


def test_points_are_means_over_seeds_of_what_has_both_seconds_and_errors():
    rows = [
        row("phdme_sensors", 0, "crps", 0.1),
        row("phdme_sensors", 1, "crps", 0.3),
        row("phdme_sensors", 0, "seconds_per_forecast", 2.0),
        row("phdme_sensors", 1, "seconds_per_forecast", 4.0),
        row("phdme_sensors", 0, "crps", 0.5, calls=1),
        row("phdme_sensors", 0, "seconds_per_forecast", 1.0, calls=1),
        # the true energy is not timed, a failed method has no error, another split is not asked for
        row("reference", 0, "crps", 0.05),
        row("fourdvar", 0, "crps", None),
        row("fourdvar", 0, "seconds_per_forecast", 9.0),
        row("enks", 0, "crps", 0.1, split="sensors_8"),
        row("enks", 0, "seconds_per_forecast", 0.1, split="sensors_8"),
    ]
    assert cost_points(rows, "sensors_4", 4) == {"phdme_sensors": {4: (3.0, 0.2), 1: (1.0, 0.5)}}
