"""What methods learn from and are asked: one recording to learn, windows of it and of another to forecast.

Start states carry the error with which they are measured: a method is told the measured start, its samples begin at
possible true ones. Frames are evenly spaced; forecasts at the images' times are interpolated by cubic splines.
"""

from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from experiments.spring.prior import SpringOptions, fit_spring, learned_images, spring_problem
from experiments.spring.recording import (
    Clock,
    SpringRecording,
    load_spring,
    modal_amplitudes,
    modal_states,
    sine_modes,
    with_rest,
)
from experiments.spring.windows import Windows, make_windows, start_states
from experiments.study.runner import changed
from experiments.study.study import Bench, Context, Split
from phdme_jax.calibration import minimum_calibration_size
from phdme_jax.files import InputError
from phdme_jax.methods.base import Examples, Start, Task, Times, stage_key
from phdme_jax.methods.energy.options import read_options

# numbers that keys of samples are made from, those of the errors of the start from three more
SPLITS, ERRORS = {"calibration": 0, "train": 1, "test": 2, "validation": 6}, 3
# a validation run learns from the frames before this one, counted from the release, and scores windows after it
VALIDATED_FROM = 190


@dataclass(frozen=True, eq=False)
class SpringWorld:
    """Recordings and the windows that are forecast.

    Attributes:
      train: recording that is learned from.
      test: recording that is not; where a run validates, the same.
      windows: by split, all with the same number of images.
      start_frame: of the stated window, counted from the release.
      asked: name of the split of `test`.
    """

    train: SpringRecording
    test: SpringRecording
    windows: dict[str, Windows]
    start_frame: int
    asked: str

    def recording(self, split: str) -> SpringRecording:
        """The recording that a split belongs to."""
        return self.test if split == self.asked else self.train

    @cached_property
    def stated(self) -> int:
        """Index of the stated window in the splits that are scored."""
        return int(np.flatnonzero(self.windows[self.asked].starts == self.start_frame)[0])

    def measured_states(self, split: str) -> Float[np.ndarray, "image grid 3"]:
        """The motion at the images of the stated window, as measured; its momentum is smoothed data."""
        windows = self.windows[split]
        begin = windows.begin[self.stated]
        return self.recording(split).states[begin : begin + windows.times.shape[1]]


@lru_cache
def _load(data_dir: Path, name: str, modes: int, grid_points: int, clock: Clock) -> SpringRecording:
    return load_spring(data_dir, name, modes=modes, grid_points=grid_points, clock=clock)


def load_world(context: Context, config: ConfigDict) -> SpringWorld:
    """Both recordings, read once, and their windows.

    Raises:
      InputError: no folder of data was named.
      ValueError: a file is missing or garbled, or a window leaves its recording.
    """
    if context.data_dir is None:
        raise InputError("this study needs measured data; say --data_dir DIR, a folder that holds spring/rightdown.txt")
    options = dict(config.data)
    names = options.pop("train"), options.pop("test")
    train, test = (_load(context.data_dir, name, **options) for name in names)
    asked = {"calibration": (train, config.calibration), "train": (train, config.starts)}
    if context.validates:
        del asked["train"]
    asked[context.asked] = test, config.starts
    windows = {split: make_windows(*where, config.forecast.frames) for split, where in asked.items()}
    images = min(part.truth.shape[1] for part in windows.values())
    cut = {split: part.cut(images) for split, part in windows.items()}
    return SpringWorld(train, test, cut, config.forecast.start_frame, context.asked)


def asked_config(context: Context, config: ConfigDict) -> ConfigDict:
    """The configuration, changed where the run validates: the training recording alone, and windows of its later part.

    Energies, starts of rollouts and start states rest on images before `VALIDATED_FROM` alone. The clock, the rest
    curve and the size of the noise are still those of the whole recording, and calibration windows that begin earlier
    reach into those that are scored: coverage says nothing in a run that validates.
    """
    if not context.validates:
        return config
    last = config.calibration[1]
    return changed(
        config,
        (
            ("data.test", config.data.train),
            ("prior.last_frame", min(VALIDATED_FROM, config.prior.last_frame)),
            ("starts", (VALIDATED_FROM, last, config.starts[2])),
            ("calibration", (config.calibration[0], VALIDATED_FROM - 1, config.calibration[2])),
            ("forecast.start_frame", VALIDATED_FROM),
        ),
    )


def check_spring(context: Context) -> None:
    """Refuses data, windows and options that cannot be used.

    Raises:
      InputError: no folder of data was named.
      ValueError: what is wrong.
    """
    config = asked_config(context, context.config)
    read_options(config.to_dict())
    first, last, step = config.starts
    if config.forecast.start_frame not in range(first, last + 1, step):
        raise ValueError(
            f"expected forecast.start_frame among the starts {first} to {last} by {step}, got "
            f"{config.forecast.start_frame}; change --config.starts"
        )
    world = load_world(context, config)
    learned_images(world.train, spring_options(config))
    count = world.windows["calibration"].starts.size
    least = minimum_calibration_size(config.level)
    if count < least:
        raise ValueError(f"expected {least} calibration windows for level {config.level}, got {count}; add starts")


def spring_options(config: ConfigDict) -> SpringOptions:
    """What `fit_spring` reads, of two groups of the configuration."""
    return SpringOptions(**config.prior, draws=config.forecast.draws, substeps=config.forecast.substeps)


def draw_states(
    recording: SpringRecording,
    count: int,
    scale: tuple[float, float],
    rest: tuple[float, float],
    key: Key[Array, ""],
    last_frame: int | None = None,
) -> Float[np.ndarray, "start grid 3"]:
    """States like those of a recording.

    Every mode takes amplitude and rate from an image of its own, with a random sign and scale; the rest strain is the
    recording's, scaled, with a random sign.

    Args:
      recording: the recording.
      count: number of states.
      scale: range of the scale of each mode.
      rest: range of the scale of the rest strain.
      key: random key.
      last_frame: images shown from this one on, counted from the release, are not drawn from; None draws from all.
    Returns:
      the states.
    """
    image_key, scale_key, rest_key = jax.random.split(key, 3)
    shape, modes = (count, recording.modes), np.arange(recording.modes)
    since = recording.frame - recording.release
    images = recording.time.size if last_frame is None else int(np.searchsorted(since, last_frame))
    image = np.asarray(jax.random.randint(image_key, shape, 0, images))
    value, rate = _signed(scale_key, shape, scale) * np.stack([recording.smooth, recording.rate])[:, image, modes]
    moving = modal_states(recording.grid, value, rate)
    return with_rest(moving, _signed(rest_key, (count, 1), rest) * recording.rest_strain)


def _signed(key: Key[Array, ""], shape: tuple[int, ...], size: tuple[float, float]) -> np.ndarray:
    size_key, sign_key = jax.random.split(key)
    drawn = jax.random.uniform(size_key, shape, jnp.float64, *size)
    return np.asarray(drawn * jax.random.rademacher(sign_key, shape, jnp.float64))


def window_starts(
    recording: SpringRecording, windows: Windows, noise: Float[np.ndarray, "error image mode"], num_frames: int
) -> Start:
    """What methods are told of the windows of a recording, and how wrong it may be.

    Args:
      recording: the recording.
      windows: its windows.
      noise: of its amplitudes [length].
      num_frames: of forecasts.
    Returns:
      measured starts, leaves with a leading axis.
    """
    state = with_rest(start_states(recording, windows, recording.amplitude), recording.rest_strain)
    errors = with_rest(start_states(recording, windows, noise), np.zeros(recording.grid.size))
    return Start(state, np.zeros((len(state), num_frames, 0)), errors)


def observe_displacement(
    recording: SpringRecording,
    since: Float[np.ndarray, "window image"],
    fields: Float[np.ndarray, "window time grid 2"],
    times: Times,
) -> Float[np.ndarray, "window image grid 1"]:
    """What a recording shows of forecasts: displacement in its modes, by cubic splines at the images' times.

    Args:
      recording: the recording.
      since: times of the images since the start [s].
      fields: momentum and strain at the frames of the forecast.
      times: of these frames.
    Returns:
      displacement [length].
    """
    from scipy.interpolate import CubicSpline

    amplitude = modal_amplitudes(recording.grid, fields[..., 1], recording.modes)
    pairs = zip(amplitude, since, strict=True)
    at_images = np.stack([CubicSpline(times, curve)(images) for curve, images in pairs])
    return (at_images @ sine_modes(recording.grid, recording.modes).T)[..., None]


def spring_bench(context: Context, config: ConfigDict, case: str, seed: int) -> Bench:
    """One seed of the study; recordings and windows are the same for all."""
    config = asked_config(context, config)
    world, key = load_world(context, config), jax.random.fold_in(jax.random.key(11), seed)
    train, generator, forecast = world.train, config.generator, config.forecast
    duration = float(max(windows.since.max() for windows in world.windows.values()))
    # as the frames of a generator are counted, so that both are the same ones
    times = tuple(duration / (generator.num_frames - 1) * index for index in range(generator.num_frames))

    def keyed(split: str, first: int) -> Key[Array, ""]:
        return jax.random.fold_in(stage_key(key, "samples"), first + SPLITS[split])

    def split(name: str) -> Split:
        recording, windows = world.recording(name), world.windows[name]
        shape = (forecast.draws, *recording.amplitude.shape)
        noise = np.asarray(jax.random.normal(keyed(name, ERRORS), shape, jnp.float64)) * train.amplitude_noise
        start = window_starts(recording, windows, noise, len(times))
        return Split(windows.truth, start, partial(observe_displacement, recording, windows.since))

    splits = {name: split(name) for name in world.windows}
    errors = splits["calibration"].condition.errors.reshape(-1, train.grid.size, 3)

    def starts(key: Key[Array, ""], count: int) -> Start:
        state_key, error_key = jax.random.split(key)
        last = config.prior.last_frame if context.validates else None
        state = draw_states(train, count, generator.start_scale, generator.rest_scale, state_key, last)
        error = errors[np.asarray(jax.random.randint(error_key, (count, 1), 0, len(errors)))]
        return Start(state, np.zeros((count, len(times), 0)), error)

    def examples() -> Examples:
        start = Start(train.states[:1], np.zeros((1, train.time.size, 0)), errors[None])
        return Examples(train.states[None], start, tuple(train.time.tolist()))

    options = config.to_dict()
    options["prior"] = asdict(spring_options(config))
    options["rollouts"] = {"count": generator.rollouts}
    options["generator"] = {"num_frames": generator.num_frames, "duration": duration, "substeps": generator.substeps}
    problem = spring_problem(train.grid.size)
    return Bench(
        task=Task(problem, examples, starts, key, times, 1, partial(fit_spring, train, times)),
        options=options,
        splits=splits,
        key=key,
        sample_key=lambda split, method: keyed(split, 0),
        num_samples=forecast.draws,
        scale=train.displacement.std(keepdims=True)[0],
        level=config.level,
        world=world,
    )
