"""What is read of a recording where most of its tracked points are hidden.

The picture is cut into stretches of equal width along the spring, because a tracked pixel has no identity from image to
image and the same one is often tracked several times: what is hidden is every pixel of a stretch. A reading is a pixel
as it was tracked, with the recording's own noise and stray ones.
"""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from experiments.spring.hidden_models import Readings
from experiments.spring.prior import REST
from experiments.spring.recording import (
    FITTED_MODES,
    PICTURE_WIDTH,
    SPAN,
    SpringRecording,
    displaced_pixels,
    rest_curve,
    shown_images,
    sine_modes,
    with_rest,
)
from experiments.spring.tracking import read_tracking
from experiments.spring.windows import Windows

UNIT = SPAN[1] - SPAN[0]


class Tracked(NamedTuple):
    """The distinct pixels of every image, padded.

    Attributes:
      place: between the nodes, 0 to 1.
      displacement: from the rest curve [length].
      there: one where there is a pixel, zero elsewhere.
    """

    place: Float[np.ndarray, "image pixel"]
    displacement: Float[np.ndarray, "image pixel"]
    there: Float[np.ndarray, "image pixel"]


@lru_cache
def tracked_pixels(data_dir: Path, recording: SpringRecording) -> Tracked:
    """The pixels behind a recording that was read from the same folder."""
    points = read_tracking(data_dir / "spring" / f"{recording.name}.txt")
    rest = rest_curve(points)
    images = [displaced_pixels(image, rest) for image in shown_images(points, recording.frame)]
    padded = np.zeros((3, len(images), max(x.size for x, _ in images)))
    for index, (x, height) in enumerate(images):
        padded[:, index, : x.size] = (x - SPAN[0]) / UNIT, height / UNIT, np.ones_like(x)
    return Tracked(*padded)


def stretch_edges(count: int) -> Float[np.ndarray, " edge"]:
    """Edges of the stretches of the picture, between the nodes."""
    return (np.linspace(0.0, PICTURE_WIDTH, count + 1) - SPAN[0]) / UNIT


def stretch_middles(count: int) -> Float[np.ndarray, " stretch"]:
    """Their middles."""
    edges = stretch_edges(count)
    return 0.5 * (edges[1:] + edges[:-1])


def stretch_of(place: Float[np.ndarray, "*pixels"], count: int) -> Int[np.ndarray, "*pixels"]:
    """Index of the stretch that a place lies in."""
    return np.clip(np.searchsorted(stretch_edges(count), place, side="right") - 1, 0, count - 1)


def draw_layouts(
    visible: int, stretches: int, windows: int, key: Key[Array, ""]
) -> Float[np.ndarray, "window stretch"]:
    """One where a stretch is read, zero where it is hidden, drawn for each window, all layouts equally likely."""
    order = np.asarray(jax.random.uniform(key, (windows, stretches), jnp.float64)).argsort(axis=1)
    return (order.argsort(axis=1) < visible).astype(float)


def make_readings(
    recording: SpringRecording,
    tracked: Tracked,
    windows: Windows,
    layouts: Float[np.ndarray, "window stretch"],
    count: int,
) -> Readings:
    """What is read in the visible stretches of each window, over `count` images of which the start is the last.

    Args:
      recording: the recording.
      tracked: its pixels.
      windows: each with as many images up to its start.
      layouts: of the windows.
      count: of images.
    Returns:
      the readings, leaves with a leading axis.
    """
    images = windows.begin[:, None] + np.arange(1 - count, 1)
    place, displacement, there = (leaf[images] for leaf in tracked)
    rows = np.arange(len(images))[:, None, None]
    mask = there * layouts[rows, stretch_of(place, layouts.shape[1])]
    shapes = np.stack([[sine_modes(image, FITTED_MODES) for image in window] for window in place])
    times = np.concatenate([recording.time[images], windows.times[:, 1:]], axis=1)
    still = with_rest(np.zeros((len(images), recording.grid.size, REST)), recording.rest_strain)
    return Readings(shapes * there[..., None], displacement * mask, mask, times - times[:, :1], jnp.asarray(still))
