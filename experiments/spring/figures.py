"""Pictures and words of the spring study's report."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.evaluation import forecasts as evaluation
from experiments.spring.prior import preload_of, stress
from experiments.spring.windows import window_errors
from experiments.study.command import RunContext
from phdme_jax.app import figures
from phdme_jax.app.drawing import Curve, EffortSlice, Labels
from phdme_jax.app.page import Picture, Section
from phdme_jax.calibration import coverage_curve
from phdme_jax.systems.energy.vibrating_string import KELVIN_VOIGT, VISCOUS

if TYPE_CHECKING:
    from experiments.spring.__main__ import SeedRun

SITES = (0.25, 0.5, 0.75)
LEVELS = np.linspace(0.1, 0.95, 18)
TIME, POSITION = "time since the start [s]", "position [length]"


def draw_all(context: RunContext, run: "SeedRun", kept: dict[str, Any]) -> list[Section]:
    """All pictures of one seed, and the sections of the report."""
    main = next(iter(kept))
    return [
        Section("What was forecast", _data_words(run), metrics=("nmse", "mse", "crps", "nmse_of_zero")),
        _forecast_section(context, run, kept, main),
        _energy_section(context, run, kept),
        _stress_section(context, run),
        _calibration_section(context, run, kept),
        _starts_section(context, run, kept),
    ]


def _data_words(run: "SeedRun") -> str:
    data, options, train, test = run.config.data, run.config.forecast, run.train, run.test
    left_out = [np.sum(r.amplitude[:, r.modes :] ** 2) / np.sum(r.amplitude**2) for r in (train, test)]
    shown = run.windows["test"].times[run.stated]
    return (
        f"Energy and damping are learned from {data.train} alone. The forecast of {data.test} starts at the last "
        f"image shown {options.start_frame} frames after its release and is scored on the next {run.images} distinct "
        f"images, {shown[-1] - shown[0]:.2f} s or about {options.frames} frames of the file. The start state comes "
        "from six images up to the start; no scored image enters it. Displacement, measured and forecast, is "
        f"compared in its first {train.modes} sine modes, which hold all but {left_out[0]:.2%} ({data.train}) and "
        f"{left_out[1]:.2%} ({data.test}) of the variance that five modes hold. nmse is the mean squared error over "
        "the variance of the measured displacement in the window. One length is the distance between the "
        f"nodes.\n\nAssumptions. (1) Clock (here '{data.clock}'; camera clock by default): the files repeat and skip "
        "frames, and the time stamps are decoded from the smoothness of the whole recording, scored images included; "
        "no forecast model enters, but it is a correction that uses them. The rate of 240 images a second is "
        "nominal, so that seconds carry a common unknown factor. (2) Rest curve: displacement is counted from the "
        "sagging rest curve of the same recording, taken from its last quarter, after every scored image. (3) "
        "Position of the fixed ends, chosen on the training recording. (4) Mass one, kinetic energy p²/2, a stored "
        "energy V(q) that is even in the strain and smooth on the scale of the largest strains (lengthscale "
        f"{run.config.prior.lengthscale:g} half widths of the box, stated and not learned: with free lengthscale the "
        "rows prefer wiggles of V that absorb what the model leaves out, and forecasts of the training recording get "
        "worse).\n\nOne recording was learned from and one forecast. Nodes, windows, lengthscale and the weighting "
        f"of the modes rest on forecasts of {data.train}, but the scores on {data.test} were in sight when they were "
        "chosen. The ± of the tables is over seeds of the posterior draws alone; the spread over start frames "
        "further down says more about how sure these numbers are."
    )


def _forecast_section(context: RunContext, run: "SeedRun", kept: dict[str, Any], method: str) -> Section:
    one, windows, forecast = run.stated, run.windows["test"], kept[method]["test"].displacement
    grid, time = run.test.grid, windows.times[one, 1:] - windows.times[one, 0]
    spread = evaluation.spread(forecast)[one]
    panel = figures.space_time_panel(
        context.figure_path("space_time"), windows.truth[one], forecast.mean[one], time, grid,
        Labels(x=TIME, y=POSITION, panels=("displacement [length]",)), spread,
    )  # fmt: skip
    lower, upper = (edge[one, ..., 0] for edge in evaluation.forecast_band(forecast, kept[method]["calibrated"]))
    sites = [int(np.argmin(np.abs(grid - site))) for site in SITES]
    curve = Curve(
        method,
        forecast.mean[one][:, sites, 0],
        lower[:, sites],
        upper[:, sites],
        forecast.samples[one][:8, :, sites, 0],
    )
    labels = Labels(x=TIME, y="displacement [length]", panels=tuple(f"position {grid[site]:.2f}" for site in sites))
    lines = figures.forecast_lines(
        context.figure_path("forecast_lines"), time, windows.truth[one][:, sites, 0], curve, labels
    )
    text = (
        "gp_rollout and quadratic_hamiltonian. Mean: rollout of the posterior mean energy from the fitted start state. "
        "Samples: energies and dampings drawn from the posterior, each from a start state fitted to amplitudes with "
        "measurement noise added (its size measured on the training recording).\n\nphdme and phdme_rollout. "
        "Conditional generators trained on rollouts of such draws from start states like those of the training "
        "recording, each told the start as it would be measured; the rest curve's strain is part of the condition, so "
        "that one network serves both recordings. phdme sees the start state, phdme_rollout also the mean rollout. "
        "Mean: mean of the samples; their rejection_rate is that of the training rollouts."
    )
    return Section(
        f"Forecast of {run.config.data.test}",
        text,
        (
            Picture(panel, f"{method}: measured, forecast, forecast − measured, standard deviation of the samples."),
            Picture(lines, f"{method}: band of level {run.config.level:g}, eight samples, measured motion dashed."),
        ),
        metrics=("coverage", "coverage_points", "band_width", "rejection_rate", "seconds_per_sample", "fit_seconds"),
    )


def _energy_section(context: RunContext, run: "SeedRun", kept: dict[str, Any]) -> Section:
    one, times = run.stated, run.windows["test"].times[run.stated]
    curves = []
    for method, parts in kept.items():
        lower, upper = np.quantile(parts["test"].energy_samples[one], [0.05, 0.95], axis=0)
        curves.append(Curve(method, parts["test"].energy[one], lower, upper))
    picture = figures.energy_over_time(
        context.figure_path("energy"), times - times[0], curves, run.measured_energy("test"),
        Labels(x=TIME, y="energy [length²/s²]"),
    )  # fmt: skip
    text = (
        "Each rollout's energy under its own learned energy function; it cannot rise, because the structure is "
        "passive and the integrator closes the energy balance in every step. The measured motion is shown under the "
        "mean learned energy, with momentum from a smoother that sees later images; its ripples mix errors of that "
        "momentum with what two modes and the learned energy leave out. energy_drift is the largest rise over the "
        "start value, energy_error the rms difference from the measured motion over its start value."
    )
    return Section(
        "Energy", text, (Picture(picture, "Bands: 5 % to 95 % of the samples."),), ("energy_drift", "energy_error")
    )


def _stress_section(context: RunContext, run: "SeedRun") -> Section:
    basis, prior = run.prior(True)
    box, train = prior.posterior.mean.box, run.train
    since = train.frame - train.release
    used = (since >= run.config.prior.first_frame) & (since < run.config.prior.last_frame)
    strain = train.strain[used] + np.asarray(preload_of(train))[:, 1]
    reach = float(np.abs(strain).max())
    q = np.linspace(0.02, 1.2 * reach, 80)
    law = jax.jit(lambda candidate: stress(basis, box, candidate, jnp.asarray(q)))
    mean, draws = np.asarray(law(prior.best)), np.asarray(jax.vmap(law)(prior.draws))
    inside, label = (0.02, reach), "strain q, rest strain included [1]"
    slices = (
        EffortSlice(q, mean, draws.std(0), None, inside, label, "V′(q) [length²/s²]"),
        EffortSlice(q, mean / q, (draws / q).std(0), None, inside, label, "V′(q)/q [length²/s²]"),
    )
    picture = figures.effort_learned_vs_true(
        context.figure_path("stress"), slices, Labels(panels=("stress", "secant stiffness"))
    )
    values, spreads = prior.posterior.parameters, {k: np.std(v) for k, v in prior.draws.parameters.items()}
    text = (
        "The learned stress is odd by assumption and shown for positive strain. The spring hardens: V′(q)/q grows "
        f"from {mean[0] / q[0]:.0f} to {np.interp(reach, q, mean / q):.0f} length²/s² over the strains of the "
        f"training recording. Viscous damping {float(values[VISCOUS]):.2f} ± {spreads[VISCOUS]:.2f} 1/s, Kelvin-Voigt "
        f"damping {float(values[KELVIN_VOIGT]):.3f} ± {spreads[KELVIN_VOIGT]:.3f} length²/s (standard deviation of "
        "the draws). Neighbouring rows overlap in time and their error is mostly what the model leaves out, not "
        "noise, so that these deviations are too small."
    )
    caption = "Shaded: strains of the training recording. ± 2 sd over the posterior draws, hyperparameters included."
    return Section("What was learned", text, (Picture(picture, caption),))


def _calibration_section(context: RunContext, run: "SeedRun", kept: dict[str, Any]) -> Section:
    count, tests = run.windows["calibration"].starts.size, run.windows["test"].starts.size
    empirical = {}
    for method, parts in kept.items():
        calibration, test = (jnp.asarray(parts["scores"][split]) for split in ("calibration", "test"))
        curve = coverage_curve(calibration, test, tuple(LEVELS.tolist()))
        levels, empirical[method] = np.asarray(curve.level), np.asarray(curve.coverage)
    picture = figures.coverage_curve(
        context.figure_path("coverage"), levels, empirical, tests, count,
        Labels(x="nominal coverage", y="share of windows inside"),
    )  # fmt: skip
    first, last, step = run.config.calibration
    factors = ", ".join(f"{method} {parts['calibrated'].quantile:.1f}" for method, parts in kept.items())
    text = (
        f"Split conformal calibration of the band around the whole forecast, on {count} windows of "
        f"{run.config.data.train} that start {first} to {last} frames after its release, every {step}. What this does "
        "not guarantee: the windows overlap, so they are far fewer than they seem; energy and damping were learned "
        "from the same recording, so their errors are smaller than on fresh data; and they are not exchangeable with "
        "windows of another recording, whose release, size and rest curve differ. Half the band is the spread of the "
        f"samples (and a floor of 1 %) times {factors}: about three would do if the samples were as wide as their "
        "errors, so that they are too sure. The band is the training recording's own forecast error carried over, no "
        "more. coverage is whether the whole forecast at the stated start lies inside the band, coverage_points the "
        "share of its points, coverage_starts the share of all start frames whose whole forecast does."
    )
    caption = (
        f"Share of the {tests} windows of {run.config.data.test} inside the band. The grey interval would hold for "
        "independent windows; these overlap, so that the curve moves in steps of many windows at once."
    )
    return Section("Calibration and what it is worth", text, (Picture(picture, caption),))


def _starts_section(context: RunContext, run: "SeedRun", kept: dict[str, Any]) -> Section:
    curves = {
        f"{method}, {run.recording(split).name}": window_errors(run.windows[split], parts[split])[1]
        for method, parts in kept.items()
        for split in ("test", "train")
    }
    picture = figures.training_curve(
        context.figure_path("starts"), dict.fromkeys(curves, run.windows["test"].starts), curves,
        Labels(x="start frame after the release", y="nmse"),
    )  # fmt: skip
    text = (
        "The same forecast from other start frames; neighbours may share an image. The start state, whose momentum "
        "rests on six images, causes part of the spread; the rest is what the model leaves out. On the training "
        "recording energy and damping are in-sample. The stated start is half a period after the release, near the "
        "first turning point; it was not chosen by its score, but it is one of the most favourable, so that the "
        "median and the range belong beside it."
    )
    caption = "nmse of the window that begins at each start frame."
    return Section("Sensitivity to the start", text, (Picture(picture, caption),), metrics=("nmse", "coverage_starts"))
