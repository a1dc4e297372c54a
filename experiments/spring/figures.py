"""Pictures and words of the spring study's report."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.report.fields import coverage_picture
from experiments.spring.bench import asked_config
from experiments.spring.prior import stress
from experiments.spring.scores import LEARNED, forecast_energies, measured_energy, window_errors
from experiments.study.study import Shown
from phdme_jax.app import figures
from phdme_jax.app.drawing import Curve, EffortSlice, Labels
from phdme_jax.app.page import Picture, Section
from phdme_jax.forecasting.bands import forecast_band, spread
from phdme_jax.gp.sampling import sample_energy
from phdme_jax.systems.energy.vibrating_string import KELVIN_VOIGT, VISCOUS

SITES = (0.25, 0.5, 0.75)
TIME, POSITION = "time since the start [s]", "position [length]"


def _config(shown: Shown) -> ConfigDict:
    """Of what the run really learned and asked."""
    return asked_config(shown.context, shown.context.config)


def data_section(shown: Shown) -> Sequence[Section]:
    """What was forecast, and what the numbers rest on."""
    config, world = _config(shown), shown.run.bench.world
    data, options, recordings = config.data, config.forecast, (world.train, world.test)
    left_out = [np.sum(r.amplitude[:, r.modes :] ** 2) / np.sum(r.amplitude**2) for r in recordings]
    since = world.windows[world.asked].since[world.stated]
    text = (
        f"Energy and damping are learned from {data.train} alone. The forecast of {data.test} starts at the last "
        f"image shown {options.start_frame} frames after its release and is scored on the next {since.size} distinct "
        f"images, {since[-1]:.2f} s or about {options.frames} frames of the file. The start state comes "
        "from six images up to the start; no scored image enters it. Displacement, measured and forecast, is "
        f"compared in its first {data.modes} sine modes, which hold all but {left_out[0]:.2%} ({data.train}) and "
        f"{left_out[1]:.2%} ({data.test}) of the variance that five modes hold. nmse is the mean squared error over "
        "the variance of the measured displacement in the window. One length is the distance between the "
        f"nodes.\n\nAssumptions. (1) Clock (here '{data.clock}'; camera clock by default): the files repeat and skip "
        "frames, and the time stamps are decoded from the smoothness of the whole recording, scored images included; "
        "no forecast model enters, but it is a correction that uses them. The rate of 240 images a second is "
        "nominal, so that seconds carry a common unknown factor. (2) Rest curve: displacement is counted from the "
        "sagging rest curve of the same recording, taken from its last quarter, after every scored image. (3) "
        "Position of the fixed ends, chosen on the training recording. (4) Mass one, kinetic energy p²/2, a stored "
        "energy V(q) that is even in the strain and smooth on the scale of the largest strains (lengthscale "
        f"{config.prior.lengthscale:g} half widths of the box, stated and not learned: with free lengthscale the "
        "rows prefer wiggles of V that absorb what the model leaves out, and forecasts of the training recording get "
        "worse).\n\nOne recording was learned from and one forecast. Nodes, windows, lengthscale and the weighting "
        f"of the modes rest on forecasts of {data.train}, but the scores on {data.test} were in sight when they were "
        "chosen. The ± of the tables is over seeds of the posterior draws alone; the spread over start frames "
        "further down says more about how sure these numbers are."
    )
    if shown.context.validates:
        text = (
            f"This run validates: of {data.train} only images shown before frame {config.prior.last_frame} are learned "
            "from, later ones are forecast, and the other recording is left alone. The words below are those of a run "
            f"that tests.\n\n{text}"
        )
    return [Section("What was forecast", text, metrics=("nmse", "mse", "crps", "nmse_of_zero"))]


def forecast_section(shown: Shown) -> Sequence[Section]:
    """The stated window, as the first method forecasts it."""
    world, config = shown.run.bench.world, _config(shown)
    method, answers = next(iter(shown.answers.items()))
    answer, grid, since = answers[shown.context.asked], world.test.grid, world.windows[world.asked].since[world.stated]
    truth, mean = (values[world.stated] for values in (answer.truth, answer.forecasts.mean))
    panel = figures.space_time_panel(
        shown.context.figure_path("space_time"),
        truth,
        mean,
        since,
        grid,
        Labels(x=TIME, y=POSITION, panels=("displacement [length]",)),
        spread(answer.forecasts)[world.stated],
    )
    assert answer.calibration is not None and answer.forecasts.samples is not None
    sites = [int(np.argmin(np.abs(grid - site))) for site in SITES]
    lower, upper = (edge[world.stated][:, sites, 0] for edge in forecast_band(answer.forecasts, answer.calibration))
    samples = answer.forecasts.samples[world.stated][:8, :, sites, 0]
    lines = figures.forecast_lines(
        shown.context.figure_path("forecast_lines"),
        since,
        truth[:, sites, 0],
        Curve(method, mean[:, sites, 0], lower, upper, samples),
        Labels(x=TIME, y="displacement [length]", panels=tuple(f"position {grid[site]:.2f}" for site in sites)),
    )
    text = (
        "gp_rollout and quadratic_hamiltonian. Mean: rollout of the posterior mean energy from the measured start "
        "state. Samples: energies and dampings drawn from the posterior, each from a state that the start may have "
        "been, given the noise of the images (its size measured on the training recording).\n\nphdme and "
        "phdme_rollout. Conditional generators trained on rollouts of such draws from start states like those of the "
        "training recording, each told the start as it would be measured; the rest curve's strain is part of the "
        "condition, so that one network serves both recordings. phdme sees the start state, phdme_rollout also the "
        "mean rollout. Mean: what the samples are drawn around, a learned time step repeated or the mean rollout; "
        "their rejection_rate is that of the training rollouts.\n\nAll forecasts are made at even frames and "
        "interpolated to the images' times by cubic splines."
    )
    pictures = (
        Picture(panel, f"{method}: measured, forecast, forecast − measured, standard deviation of the samples."),
        Picture(lines, f"{method}: band of level {config.level:g}, eight samples, measured motion dashed."),
    )
    scored = ("coverage", "coverage_points", "band_width", "rejection_rate", "seconds_per_sample", "fit_seconds")
    return [Section(f"Forecast of {config.data.test}", text, pictures, scored)]


def energy_section(shown: Shown) -> Sequence[Section]:
    """Energy along the forecasts of the stated window."""
    world, curves = shown.run.bench.world, []
    since = world.windows[world.asked].times[world.stated] - world.windows[world.asked].times[world.stated, 0]
    for method, answers in shown.answers.items():
        at_images = forecast_energies(answers[shown.context.asked]).at(since)
        lower, upper = np.quantile(at_images.samples, [0.05, 0.95], axis=0)
        curves.append(Curve(method, at_images.mean, lower, upper))
    picture = figures.energy_over_time(
        shown.context.figure_path("energy"),
        since,
        curves,
        measured_energy(shown.run, shown.context.asked),
        Labels(x=TIME, y="energy [length²/s²]"),
    )
    text = (
        "A rollout's energy under the energy function that it follows; it cannot rise, because the structure is "
        "passive and the integrator closes the energy balance in every step. What a network generates, and the "
        "measured motion, are shown under the mean learned energy. The measured momentum comes from a smoother that "
        "sees later images; the ripples mix errors of that momentum with what two modes and the learned energy leave "
        "out. energy_drift is the largest rise over the start value, energy_error the rms difference from the measured "
        "motion over its start value."
    )
    caption = "Bands: 5 % to 95 % of the samples."
    return [Section("Energy", text, (Picture(picture, caption),), ("energy_drift", "energy_error"))]


def stress_section(shown: Shown) -> Sequence[Section]:
    """The learned stress, and what it says of the spring."""
    prior, train, options = shown.run.fitted(LEARNED).params, shown.run.bench.world.train, _config(shown).prior
    since = train.frame - train.release
    used = (since >= options.first_frame) & (since < options.last_frame)
    reach = float(np.abs(train.states[used, :, 1:].sum(-1)).max())
    q = np.linspace(0.02, 1.2 * reach, 80)
    keys = jax.random.split(shown.run.bench.key, prior.draws.objective.shape[0])
    draws = np.asarray(
        jax.vmap(lambda posterior, key: stress(sample_energy(posterior, key), jnp.asarray(q)))(prior.draws, keys)
    )
    mean = np.asarray(stress(prior.best.mean, jnp.asarray(q)))
    inside, label = (0.02, reach), "strain q, rest strain included [1]"
    slices = (
        EffortSlice(q, mean, draws.std(0), None, inside, label, "V′(q) [length²/s²]"),
        EffortSlice(q, mean / q, (draws / q).std(0), None, inside, label, "V′(q)/q [length²/s²]"),
    )
    picture = figures.effort_learned_vs_true(
        shown.context.figure_path("stress"), slices, Labels(panels=("stress", "secant stiffness"))
    )
    values, widths = prior.best.parameters, {name: np.std(drawn) for name, drawn in prior.draws.parameters.items()}
    text = (
        "The learned stress is odd by assumption and shown for positive strain. The spring hardens: V′(q)/q grows "
        f"from {mean[0] / q[0]:.0f} to {np.interp(reach, q, mean / q):.0f} length²/s² over the strains of the "
        f"training recording. Viscous damping {float(values[VISCOUS]):.2f} ± {widths[VISCOUS]:.2f} 1/s, Kelvin-Voigt "
        f"damping {float(values[KELVIN_VOIGT]):.3f} ± {widths[KELVIN_VOIGT]:.3f} length²/s (standard deviation of "
        "the draws). Neighbouring rows overlap in time and their error is mostly what the model leaves out, not "
        "noise, so that these deviations are too small."
    )
    caption = "Shaded: strains of the training recording. ± 2 sd over the posterior draws, hyperparameters included."
    return [Section("What was learned", text, (Picture(picture, caption),))]


def calibration_section(shown: Shown) -> Sequence[Section]:
    """Empirical against nominal coverage, and why it is no guarantee."""
    config, windows = _config(shown), shown.run.bench.world.windows
    count, tests = windows["calibration"].starts.size, windows[shown.context.asked].starts.size
    picture = coverage_picture(shown, Labels(y="share of windows inside"))
    calibrations = {method: answers[shown.context.asked].calibration for method, answers in shown.answers.items()}
    factors = [f"{method} {found.quantile:.1f}" for method, found in calibrations.items() if found is not None]
    first, last, step = config.calibration
    text = (
        f"Split conformal calibration of the band around the whole forecast, on {count} windows of "
        f"{config.data.train} that start {first} to {last} frames after its release, every {step}. What this does "
        "not guarantee: the windows overlap, so they are far fewer than they seem; energy and damping were learned "
        "from the same recording, so their errors are smaller than on fresh data; and they are not exchangeable with "
        "windows of another recording, whose release, size and rest curve differ. Half the band is the spread of the "
        f"samples (and a floor of 1 %) times {', '.join(factors)}: about three would do if the samples were as wide as "
        "their errors, so that they are too sure. The band is the training recording's own forecast error carried "
        "over, no more. coverage is whether the whole forecast at the stated start lies inside the band, "
        "coverage_points the share of its points, coverage_starts the share of all start frames whose whole forecast "
        "does."
    )
    caption = (
        f"Share of the {tests} windows of {config.data.test} inside the band. The grey interval would hold for "
        "independent windows; these overlap, so that the curve moves in steps of many windows at once."
    )
    return [Section("Calibration and what it is worth", text, (Picture(picture, caption),))]


def starts_section(shown: Shown) -> Sequence[Section]:
    """The error over start frames."""
    world, config = shown.run.bench.world, _config(shown)
    curves = {method: window_errors(answers[shown.context.asked])[1] for method, answers in shown.answers.items()}
    picture = figures.training_curve(
        shown.context.figure_path("starts"),
        dict.fromkeys(curves, world.windows[world.asked].starts),
        curves,
        Labels(x="start frame after the release", y="nmse"),
    )
    text = (
        "The same forecast from other start frames; neighbours may share an image. The start state, whose momentum "
        "rests on six images, causes part of the spread; the rest is what the model leaves out. On the training "
        "recording energy and damping are in-sample. The stated start is half a period after the release, near the "
        "first turning point; it was not chosen by its score, but it is one of the most favourable, so that the "
        "median and the range belong beside it."
    )
    caption = (
        f"nmse of the window of {config.data.test} that begins at each start frame. Methods around one mean share a "
        "curve."
    )
    scored = ("nmse", "coverage_starts")
    return [Section("Sensitivity to the start", text, (Picture(picture, caption),), scored)]
