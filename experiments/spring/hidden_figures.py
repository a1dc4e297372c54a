"""The section of the spring study's report on hidden points."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.spring.hidden import INTERPOLATED, SEARCHED, HiddenAnswer, Questions, hidden_answers
from experiments.spring.scores import LEARNED
from experiments.study.study import Shown
from phdme_jax.app import drawing
from phdme_jax.app.drawing import Curve, Labels
from phdme_jax.app.page import Picture, Section
from phdme_jax.forecasting.bands import forecast_band

NUM_PLACES = 3  # hidden ones that are shown


def hidden_section(shown: Shown) -> Sequence[Section]:
    """What was hidden, and the stated window, or the first one, of the most readings; none where nothing was asked."""
    options, config = shown.context.config.hidden, shown.context.config
    if not options.counts:
        return []
    visible = max(options.counts)
    questions, answers = hidden_answers(shown.run, visible)
    starts = questions.windows.starts.tolist()
    stated = shown.run.bench.world.start_frame
    window = starts.index(stated) if stated in starts else 0
    path = shown.context.figure_path("hidden")
    labels = Labels(x="time since the start [s]", y="displacement [length]")
    picture = _draw_window(path, questions, answers[SEARCHED], window, labels)
    text = (
        f"The picture is cut into {options.stretches} stretches, because a tracked pixel has no identity from image to "
        "image. Of each window some of them, other ones for each, are read over the last "
        f"{options.window} images up to its start: sensors_{visible} reads {visible}, and hides every pixel in the "
        f"other {options.stretches - visible}. Readings are pixels as they were tracked, stray ones included, taken to "
        f"have a noise of {options.deviation:g} lengths. Scores are means over the windows, in the middles of the "
        "hidden stretches alone, against displacement in the first modes as above; layouts differ between seeds.\n\n"
        f"{SEARCHED}: the state at the first image that was read, searched for by Gauss-Newton through the energy that "
        "a sample draws from the posterior, and drawn from Laplace's approximation there (in the place of perturbed "
        f"readings); the mean is that of the mean energy. {INTERPOLATED}: every image by itself, a Gaussian over the "
        "first modes given its readings, then the momentum by a polynomial in time, then the same energies. "
        f"{LEARNED}: the state as the study measures it, from all points. nmse_of_persistence: the last image, "
        "interpolated in space, held still. The band is calibrated on windows of the training recording with as many "
        "stretches read, and promises as little for another recording as that of the whole forecast. Noise, modes "
        f"and polynomial were chosen on windows of {config.data.train}."
    )
    caption = (
        f"{SEARCHED}, sensors_{visible}, the window that starts {starts[window]} frames after the release: what was "
        f"read, and the forecast at {NUM_PLACES} hidden places with its band of level {config.level:g}."
    )
    metrics = ("nmse", "nmse_start_median", "crps", "coverage", "coverage_points", "band_width", "seconds_per_forecast")
    return [Section("Hidden points", text, (Picture(picture, caption),), metrics)]


@drawing.styled
def _draw_window(path: Path, questions: Questions, answer: HiddenAnswer, window: int, labels: Labels) -> Path:
    """What was read and the truth along the spring, and below truth and forecast at hidden places over time."""
    readings, scored = questions.readings, questions.windows.since[window]
    places, mask = questions.places[window], np.asarray(readings.mask[window])
    first = float(readings.times[window, 0] - readings.times[window, len(mask) - 1])
    lower, upper = (edge[window, ..., 0] for edge in forecast_band(answer.forecasts, answer.calibration))
    figure = drawing.new_figure(6.4, 1.6 * (NUM_PLACES + 1) + 0.8)
    axes = figure.subplots(NUM_PLACES + 1, 1)
    # sin(2 pi z) = 2 sin(pi z) cos(pi z) gives the place of a pixel back
    sines = np.asarray(readings.shapes[window])
    place = np.arctan2(sines[..., 0], 0.5 * sines[..., 1] / np.maximum(sines[..., 0], 1e-9)) / np.pi
    seen = mask > 0
    images = np.broadcast_to(np.arange(1 - len(mask), 1)[:, None], mask.shape)
    dots = axes[0].scatter(place[seen], np.asarray(readings.values[window])[seen], c=images[seen], s=9, cmap="viridis")
    figure.colorbar(dots, ax=axes[0], label="image")
    axes[0].plot(places, np.zeros_like(places), "x", color="tab:red", markersize=5)
    axes[0].set(xlabel="position [length]", ylabel=labels.y, xlim=(0.0, 1.0))
    axes[0].set_title("pixels that were read, by image; crosses: hidden places", loc="left")
    chosen = np.linspace(0, places.size - 1, NUM_PLACES + 2).astype(int)[1:-1]
    for axis, index in zip(axes[1:], chosen, strict=True):
        curve = Curve("forecast", answer.forecasts.mean[window, :, index, 0], lower[:, index], upper[:, index])
        drawing.draw_curve(axis, scored, curve, drawing.COLOURS[0])
        truth = questions.truth[window, :, index, 0]
        axis.plot(scored, truth, color=drawing.TRUTH, linestyle="--", linewidth=1.3, label="truth", zorder=5)
        axis.axvspan(first, 0.0, color="0.9", label="other places are read")
        axis.set_title(f"hidden place {places[index]:.2f}", loc="left")
        axis.set_ylabel(labels.y)
        axis.margins(x=0.01)
    axes[-1].set_xlabel(labels.x)
    drawing.legend_below(figure, axes[1])
    return drawing.save(figure, path, labels.title)
