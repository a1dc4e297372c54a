"""House style of the pictures: words, colours, scales, legends and the one way a picture reaches the disk.

matplotlib is imported when a picture is drawn: a command that draws none starts faster.
"""

import dataclasses
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

# a command started from a notebook is told that notebook's backend, which need not be here; Agg draws the pages
if "ipykernel" not in sys.modules:
    os.environ.pop("MPLBACKEND", None)
import numpy as np
from numpy.typing import ArrayLike

from phdme_jax.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_Arguments = ParamSpec("_Arguments")

# Colours that stay apart under colour blindness (Okabe and Ito, 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
TRUTH = "#000000"
DOTS_PER_INCH = 160
STYLE: Any = {
    "figure.dpi": DOTS_PER_INCH,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "lines.linewidth": 1.5,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
}


@dataclasses.dataclass(frozen=True)
class Labels:
    """Words of a picture, units included.

    Attributes:
      title: heading, may be empty.
      x: the horizontal axis.
      y: the vertical axis.
      panels: one title for each field, site or slice.
    """

    title: str = ""
    x: str = ""
    y: str = ""
    panels: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Curve:
    """A mean over the horizontal axis with an optional band and optional samples.

    Attributes:
      label: name in the legend.
      mean: shape (time,), or (time, site) where a picture has several panels.
      lower, upper: bounds of the band, shape of `mean`.
      samples: shape (sample, *shape of `mean`).
    """

    label: str
    mean: ArrayLike
    lower: ArrayLike | None = None
    upper: ArrayLike | None = None
    samples: ArrayLike | None = None


@dataclasses.dataclass(frozen=True)
class EffortSlice:
    """A learned effort along one line through the state space.

    Attributes:
      x: the state's coordinate along the line, shape (point,).
      mean: posterior mean of the effort, shape (point,).
      standard_deviation: posterior standard deviation, shape (point,).
      truth: true effort, shape (point,), if it is known.
      data_range: smallest and largest coordinate the training data reached.
      x_label, y_label: axis labels with units.
    """

    x: ArrayLike
    mean: ArrayLike
    standard_deviation: ArrayLike
    truth: ArrayLike | None
    data_range: tuple[float, float]
    x_label: str
    y_label: str


def styled(draw: Callable[_Arguments, Path]) -> Callable[_Arguments, Path]:
    """Draws under the house style over matplotlib's defaults, and leaves the user's settings as they were."""

    @functools.wraps(draw)
    def wrapped(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Path:
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(STYLE)
            return draw(*args, **kwargs)

    return wrapped


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def marks(count: int) -> list[str]:
    """Marks of curves: another one where the colours are repeated."""
    return ["os^D"[place // len(COLOURS) % 4] for place in range(count)]


def colours(count: int) -> list[str]:
    """The first colours of the house, repeated where there are more curves than colours."""
    return [COLOURS[place % len(COLOURS)] for place in range(count)]


def value_scale(values: np.ndarray) -> dict[str, Any]:
    """Colour map and range of a state: diverging about zero where the values take both signs, sequential otherwise."""
    low, high = _range(values)
    if low < 0 < high and min(-low, high) > 0.05 * max(-low, high):
        size = max(-low, high)
        return {"cmap": "RdBu_r", "norm": _normalize(-size, size)}
    return {"cmap": "viridis", "norm": _normalize(low, high)}


def error_scale(values: np.ndarray) -> dict[str, Any]:
    """Colour map and range of a signed error: diverging, symmetric about zero."""
    low, high = _range(values)
    size = max(abs(low), abs(high)) or 1.0
    return {"cmap": "PuOr_r", "norm": _normalize(-size, size)}


def spread_scale(values: np.ndarray) -> dict[str, Any]:
    """Colour map and range of a spread: sequential from zero."""
    return {"cmap": "cividis", "norm": _normalize(0.0, max(_range(values)[1], 0.0) or 1.0)}


def _normalize(low: float, high: float) -> Any:
    from matplotlib.colors import Normalize

    return Normalize(low, high)


def draw_image(axis: "Axes", x: ArrayLike, y: ArrayLike, values: np.ndarray, style: dict[str, Any]) -> "AxesImage":
    """An image of values of shape (y, x) whose pixels are centred on evenly spaced `x` and `y`."""
    left, right = _edges(np.asarray(x))
    bottom, top = _edges(np.asarray(y))
    image = axis.imshow(
        values, origin="lower", aspect="auto", extent=(left, right, bottom, top), interpolation="nearest", **style
    )
    axis.grid(False)
    return image


def finish_bar(bar: "Colorbar") -> None:
    """Few, short numbers on a colour bar."""
    from matplotlib.ticker import MaxNLocator

    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(labelsize=7, length=2)
    bar.locator = MaxNLocator(5)
    bar.formatter.set_powerlimits((-2, 3))  # type: ignore[attr-defined]
    bar.ax.yaxis.get_offset_text().set_fontsize(7)
    bar.ax.yaxis.set_offset_position("left")
    bar.update_ticks()


def draw_curve(axis: "Axes", time: np.ndarray, curve: Curve, colour: str) -> None:
    """A mean with its band and at most 20 of its samples."""
    if curve.lower is not None and curve.upper is not None:
        lower, upper = np.asarray(curve.lower), np.asarray(curve.upper)
        axis.fill_between(time, lower, upper, color=colour, alpha=0.2, linewidth=0, label=f"{curve.label}: band")
        for bound in (lower, upper):
            axis.plot(time, bound, color=colour, alpha=0.6, linewidth=0.6)
    if curve.samples is not None:
        for place, sample in enumerate(np.asarray(curve.samples)[:20]):
            name = f"{curve.label}: samples" if place == 0 else None
            axis.plot(time, sample, color=colour, alpha=0.35, linewidth=0.6, label=name)
    axis.plot(time, np.asarray(curve.mean), color=colour, label=curve.label, zorder=4)


def log_if_positive(axis: "Axes", values: np.ndarray, which: str) -> None:
    """A logarithmic axis, with readable ticks, where all values are positive and span more than a factor of 5."""
    from matplotlib.ticker import LogLocator, NullFormatter

    finite = values[np.isfinite(values)]
    if finite.size == 0 or finite.min() <= 0 or finite.max() < 5 * finite.min():
        return
    (axis.set_xscale if which == "x" else axis.set_yscale)("log")
    part = axis.xaxis if which == "x" else axis.yaxis
    decades = np.log10(finite.max() / finite.min())
    part.set_major_locator(LogLocator(subs=(1.0,) if decades > 2 else (1.0, 2.0, 5.0)))
    part.set_major_formatter(lambda value, place: f"{value:g}")
    part.set_minor_formatter(NullFormatter())


def legend_beside(axis: "Axes") -> None:
    """The legend to the right of the axes, where it covers no data."""
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)


def legend_below(figure: "Figure", axis: "Axes") -> None:
    """One legend for all panels, in a row under them."""
    handles, names = axis.get_legend_handles_labels()
    narrow = figure.get_figwidth() < 5
    figure.legend(handles, names, loc="outside lower center", ncols=2 if narrow else min(len(names), 4))


def save(figure: "Figure", path: Path | str, title: str) -> Path:
    """Writes the picture as PNG, whole or not at all, without a date or version in it.

    Args:
      figure: the picture.
      path: PNG to write.
      title: heading, may be empty.

    Returns:
      The path.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if title:
        figure.suptitle(title, fontsize=10.5, fontweight="bold")
    FigureCanvasAgg(figure)
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None}, facecolor="white")
    return Path(path)


def _range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def _edges(points: np.ndarray) -> tuple[float, float]:
    half = 0.5 * (points[-1] - points[0]) / max(points.size - 1, 1)
    return float(points[0] - half), float(points[-1] + half)


def panels(names: list[str], height: float) -> "tuple[Figure, list[Any]]":
    """A titled panel for each name, four to a row, on shared axes."""
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(2.3 * columns, height * rows)
    axes = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True)).ravel()
    for axis, name in zip(axes, names, strict=False):
        axis.set_title(name)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    return figure, list(axes[: len(names)])
