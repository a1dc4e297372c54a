"""A synthetic camera with known motion, and the real recordings where they are at hand."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from experiments.spring import recording as spring
from experiments.spring.smoothing import choose_half_width, local_polynomial
from experiments.spring.tracking import camera_intervals, new_images, read_tracking
from experiments.spring.windows import forecast_window, make_windows, start_states

DATA = Path(os.environ.get("PHDME_DATA_DIR", Path(__file__).parents[4] / "shared" / "data"))
needs_data = pytest.mark.skipif(not (DATA / "spring" / "rightdown.txt").is_file(), reason="no recordings here")
REST = np.array([20.0, -150.0, 160.0, 650.0])
RELEASE, FRAMES = 30, 700
LENGTH = spring.SPAN[1] - spring.SPAN[0]  # [px]


def motion(time):
    """Amplitudes [px] and rates of two damped modes, (time, 2); near a turning point of mode 1 at time zero."""
    angular, damping, size = np.array([47.0, 94.0]), np.array([2.5, 4.0]), np.array([500.0, 90.0])
    phase = np.array([0.1, 0.9])
    t = np.atleast_1d(time)[:, None]
    wave, envelope = np.cos(angular * t + phase), size * np.exp(-damping * t)
    return envelope * wave, envelope * (-damping * wave - angular * np.sin(angular * t + phase))


def film():
    """Frames of pixels, and first frame and camera interval of each image: held, thinned, cluttered as real ones."""
    draw = np.random.default_rng(7)
    span = np.array(spring.SPAN)
    gaps, holds = [3, 4, 3, 3, 4, 4, 3], [2, 2, 3, 2, 2, 2, 2]
    intervals = np.concatenate([[1] * (gap - 1) + [2] for gap in gaps * 30])
    ticks = np.append(0, np.cumsum(intervals))
    first = RELEASE + 1 + np.append(0, np.cumsum(np.resize(holds, len(ticks) - 1)))

    def picture(amplitude):
        x = np.sort(np.append(draw.integers(0, 1920, 88), [5, 1915]))
        z = (x - span[0]) / (span[1] - span[0])
        y = np.polyval(REST, x / 1919.0) + np.sin(np.pi * np.outer(z, [1, 2])) @ amplitude
        clutter = [[2, 120 + 25 * i] for i in range(6)]
        return np.concatenate([np.stack([x, np.rint(y).astype(int)], 1), clutter, [[x[0], round(y[0])]] * 4])

    frames = [picture(np.array([650.0, -150.0]))] * (RELEASE + 1)
    for tick, begin, end in zip(ticks, first, first[1:], strict=False):
        frames += [picture(motion(tick / 240.0)[0][0])] * (end - begin)
    return frames[:FRAMES], first, ticks


def write(path, frames):
    blocks = ["\n".join([f"Frame {k}:", *(f"[{x}, {y}]" for x, y in f)]) for k, f in enumerate(frames, start=1)]
    path.write_text("\n\n".join(blocks) + "\n")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "spring").mkdir()
    frames, first, ticks = film()
    write(folder / "spring" / "made.txt", frames)
    return folder, frames, first, ticks, spring.load_spring(folder, "made", frames_after_release=320)


def test_reader_returns_what_was_written(synthetic):
    folder, frames, *_ = synthetic
    got = read_tracking(folder / "spring" / "made.txt")
    assert len(got) == FRAMES and all(np.array_equal(a, b) for a, b in zip(got, frames, strict=True))


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda text: "", "expected several frames"),
        (lambda text: text[: int(0.6 * len(text)) - 3], "expected"),
        (lambda text: text[: text.rindex("[")], "cut short"),
        (lambda text: text.replace("Frame 5:", "Frame 6:"), "expected 'Frame 5:'"),
        (lambda text: text.replace("Frame 9:", "Frame 9:\n[12, x7]"), r"got '\[12, x7\]', try"),
        (lambda text: "[1, 2]\n" + text, "line 1: expected 'Frame 1:'"),
    ],
)
def test_reader_refuses_a_damaged_file(tmp_path, synthetic, damage, words):
    text = (synthetic[0] / "spring" / "made.txt").read_text()
    (tmp_path / "bad.txt").write_text(damage(text))
    with pytest.raises(ValueError, match=words):
        read_tracking(tmp_path / "bad.txt")


def test_reader_reads_a_byte_order_mark_and_lines_of_another_system(tmp_path, synthetic):
    folder, frames, *_ = synthetic
    text = (folder / "spring" / "made.txt").read_text()
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert all(np.array_equal(a, b) for a, b in zip(read_tracking(tmp_path / "marked.txt"), frames, strict=True))


def test_missing_file_and_wrong_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="got nothing there, try another --data_dir"):
        spring.load_spring(tmp_path, "rightdown")
    with pytest.raises(ValueError, match="expected 1 to 5, got 6"):
        spring.load_spring(tmp_path, "rightdown", modes=6)


def test_release_images_and_camera_clock_are_recovered(synthetic):
    _, _, first, ticks, recording = synthetic
    kept = np.flatnonzero((first > RELEASE + 6) & (first <= RELEASE + 320))
    assert recording.release == RELEASE
    assert np.array_equal(recording.frame, first[kept])
    assert np.array_equal(np.rint(recording.time * 240), ticks[kept] - ticks[kept[0]])


def test_fields_match_the_motion_that_was_filmed(synthetic):
    _, _, first, ticks, recording = synthetic
    kept = np.flatnonzero((first > RELEASE + 6) & (first <= RELEASE + 320))
    value, rate = motion(ticks[kept] / 240.0)
    k = np.arange(1, 3)
    basis = np.sin(np.pi * np.outer(recording.grid, k)) / LENGTH
    slopes = np.pi * k * np.cos(np.pi * np.outer(recording.grid, k)) / LENGTH
    measured = (recording.displacement, recording.states[..., 0], recording.states[..., 1])
    truths = (value @ basis.T, rate @ basis.T, value @ slopes.T)
    for field, truth, tolerance in zip(measured, truths, (0.01, 0.04, 0.02), strict=True):
        assert np.sqrt(np.mean((field - truth) ** 2) / np.mean(truth**2)) < tolerance
    np.testing.assert_array_equal(recording.states[..., 2], np.broadcast_to(recording.rest_strain, field.shape))


def test_projection_is_unmoved_by_clutter_repeats_and_crowding():
    draw = np.random.default_rng(1)
    x = np.concatenate([draw.integers(0, 300, 60), draw.integers(300, 1920, 40)])
    z = (x + 80.0) / 2100.0
    y = np.polyval(REST, x / 1919.0) + 400.0 * np.sin(np.pi * z) - 60.0 * np.sin(2 * np.pi * z)
    points = np.stack([x, np.rint(y).astype(int)], 1)
    points = np.concatenate([points, points[:30], [[900, 10], [1500, 1300]]])
    amplitude = spring.project_frame(points, REST, spring.SPAN, 3)
    np.testing.assert_allclose(amplitude, [400.0, -60.0, 0.0], atol=1.5)


def test_projection_is_an_integral_over_the_spring_not_a_sum_over_crowded_pixels():
    x = np.concatenate([np.arange(0, 300, 4), np.arange(300, 1920, 40)])
    z = (x + 80.0) / 2100.0
    height = 400.0 * np.sin(np.pi * z) - 60.0 * np.sin(2 * np.pi * z) + 30.0 * np.sin(3 * np.pi * z)
    points = np.stack([x, np.rint(np.polyval(REST, x / 1919.0) + height).astype(int)], 1)
    amplitude = spring.project_frame(points, REST, spring.SPAN, 2)
    np.testing.assert_allclose(amplitude, [400.0, -60.0], atol=3.0)


def test_rest_curve_ignores_stray_pixels():
    draw = np.random.default_rng(3)
    frames = []
    for _ in range(40):
        x = draw.integers(0, 1920, 60)
        y = np.polyval(REST, x / 1919.0) + draw.normal(0.0, 2.0, 60)
        y[:6] += 400.0
        frames.append(np.stack([x, np.rint(y).astype(int)], 1))
    x = np.linspace(0.0, 1.0, 50)
    assert np.max(np.abs(np.polyval(spring.rest_curve(frames), x) - np.polyval(REST, x))) < 1.5


def test_local_polynomial_is_exact_for_its_degree_and_third_order_beyond():
    time = np.cumsum(np.resize([1.0, 1.0, 2.0], 60)) / 240.0
    cubic = np.stack([time**3 - time, 2.0 * time**2], axis=1)
    at = np.array([time[0], 0.1, time[-1]])
    value, rate = local_polynomial(time, cubic, at, 0.02)
    np.testing.assert_allclose(value, np.stack([at**3 - at, 2.0 * at**2], 1), atol=1e-10)
    np.testing.assert_allclose(rate, np.stack([3.0 * at**2 - 1.0, 4.0 * at], 1), atol=1e-8)
    dense = np.linspace(0.0, 1.0, 4001)
    errors = [
        abs(local_polynomial(dense, np.sin(9.0 * dense)[:, None], np.array([0.5]), h)[1][0, 0] - 9 * np.cos(4.5))
        for h in (0.04, 0.08)
    ]
    assert abs(np.log2(errors[1] / errors[0]) - 4.0) < 0.2


def test_wider_windows_are_chosen_for_noisier_samples():
    time = np.arange(300) / 240.0
    clean = np.sin(47.0 * time)[:, None]
    noise = np.random.default_rng(5).normal(size=clean.shape)
    quiet, loud = (choose_half_width(time, clean + size * noise) for size in (1e-3, 0.2))
    assert quiet[0] < loud[0]
    assert 0.2 < loud[1][0] < 0.26


def test_start_states_see_nothing_after_the_start(synthetic):
    recording = synthetic[-1]
    start, scored = forecast_window(recording)
    assert scored.start == start + 1 and recording.frame[start] <= RELEASE + 26 < recording.frame[scored][0]
    assert recording.frame[scored][-1] <= RELEASE + 26 + 180
    windows = make_windows(recording, (26, 26, 1), 180)
    later = recording.amplitude.copy()
    later[start + 1 :] += 1.0
    states = start_states(recording, windows, np.stack([recording.amplitude, later]))
    np.testing.assert_array_equal(states[0, 0], states[0, 1])
    for field, share in enumerate((0.12, 0.02)):
        measured = recording.states[..., field]
        assert np.max(np.abs(states[0, 0, :, field] - measured[start])) < share * np.max(np.abs(measured)), field


def test_windows_and_short_recordings_are_refused(synthetic):
    folder, frames, *_, recording = synthetic
    with pytest.raises(ValueError, match="expected a window within"):
        forecast_window(recording, 26, 900)
    # images are counted from the one that frame 9 after the release first shows
    with pytest.raises(ValueError, match=r"expected 6 images of made .* fewer at \[10, 14\] frames .* later starts"):
        make_windows(recording, (10, 26, 4), 180)
    with pytest.raises(ValueError, match="try a smaller frames_after_release"):
        spring.load_spring(folder, "made", frames_after_release=FRAMES)
    with pytest.raises(ValueError, match="released, got none"):
        spring.find_release(np.ones((40, 2)))
    with pytest.raises(ValueError, match="ten or more distinct images"):
        new_images(frames, 0, RELEASE)


def test_a_spring_at_rest_between_images_keeps_the_regular_pattern():
    ticks = np.cumsum(np.tile([1, 1, 2, 1, 1, 1, 2], 12))
    intervals = camera_intervals(motion(ticks / 240.0)[0] / 2100.0, np.rint(ticks / 0.6).astype(int))
    assert np.array_equal(intervals, np.diff(ticks))


def frequency_at(time, amplitude, size):
    """Frequency of whole periods, as a line in the squared size of the vibration, read at one size."""
    rises = np.flatnonzero((amplitude[:-1] < 0) & (amplitude[1:] >= 0))
    part = -amplitude[rises] / (amplitude[rises + 1] - amplitude[rises])
    crossing = time[rises] + part * (time[rises + 1] - time[rises])
    squares = [2.0 * np.mean(amplitude[a:b] ** 2) for a, b in itertools.pairwise(rises)]
    return np.polyval(np.polyfit(squares, 1.0 / np.diff(crossing), 1), size**2)


@needs_data
def test_real_recordings_share_one_frequency_once_camera_intervals_are_counted():
    """At equal size the two springs agree within 0.4 %; counted in frames they look more than 1.5 % apart."""
    frequency = {}
    for name, release, hold in (("rightdown", 49, 15 / 7), ("leftdown", 24, 2.209)):
        recording = spring.load_spring(DATA, name)
        assert recording.release == release
        frames_per_image = np.polyfit(np.arange(len(recording.frame)), recording.frame, 1)[0]
        assert abs(frames_per_image - hold) < 0.01
        assert np.all(recording.amplitude_noise[:2] * LENGTH < 1.0)
        for clock, time in {"camera": recording.time, "frames": recording.frame / 240.0}.items():
            frequency[name, clock] = frequency_at(time, recording.amplitude[:, 0], 0.14)
    ratio = {clock: frequency["rightdown", clock] / frequency["leftdown", clock] for clock in ("camera", "frames")}
    assert ratio["frames"] > 1.015 and abs(ratio["camera"] - 1.0) < 0.004, ratio
