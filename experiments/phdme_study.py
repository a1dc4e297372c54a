"""The whole study of PHDME on one page: every table and figure from the result rows of its parts, nothing trained.

    python -m experiments.phdme_study
    python -m experiments.phdme_study --results runs --workdir runs/phdme_study

Each folder below --results that holds the `results.jsonl` of a part is read; parts without rows are named as missing.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from experiments.report.parts import Rows, begin_page, read_parts
from phdme_jax.app import figures
from phdme_jax.app.command import CommandParser, folder, run_main
from phdme_jax.app.drawing import Labels
from phdme_jax.app.page import Picture, Section, build_report
from phdme_jax.app.rows import ResultRow, label_of, read_rows
from phdme_jax.app.tables import format_value, print_table
from phdme_jax.files import InputError

PARTS = {
    "string_prior": "Stage one: the energy alone",
    "vibrating_string": "The string",
    "shallow_water_1d": "Shallow water on a line",
    "shallow_water_2d": "Shallow water on a plane",
    "driven_pendulum": "The driven pendulum",
    "oscillators": "Measured oscillators",
    "spring": "The measured spring",
    "ablations": "Ablations on the string",
}
FIELDS = ("vibrating_string", "shallow_water_1d", "shallow_water_2d")
CALLS = "sampling.num_steps"
# of the ablations: name, setting, its value where it is not changed, factor, title, methods
CURVES = (
    ("trajectories", "data.num_observed", 4, 1, "observed trajectories", ("phdme", "gp_rollout", "diffusion")),
    ("sites", "data.num_sites", 64, 1, "observed points a frame", ("gp_rollout",)),
    ("noise", "data.noise", 0.01, 100, "noise [% of the field]", ("gp_rollout",)),
    ("weight", "physics.residual_weight", 0.1, 1, "weight of the physics residual", ("phdme",)),
)


def _changes(method: str, key: str, *values: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(method, {}), *((method, {key: value}) for value in values)]


# of the ablations: name -> title and what is compared
GROUPS = {
    "parts": (
        "augmentation and residual",
        [
            *_changes("phdme", "physics.residual_weight", 0.0),
            *((name, {}) for name in ("diffusion_augmented", "diffusion_physics", "diffusion", "gp_rollout")),
        ],
    ),
    "residual": (
        "target and weights of the residual",
        [
            *_changes("phdme", "physics.residual_target", "zero"),
            *_changes("phdme", "physics.weights", "off", "shuffled")[1:],
        ],
    ),
    "structures": (
        "structures, right and wrong",
        _changes("gp_rollout", "structure.alternative", "undamped", "opposite_sign", "one_row_opposite"),
    ),
}

MakePath = Callable[[str], Path]


class Ratio(NamedTuple):
    """A metric of two methods on the same seeds, the first over the second."""

    metric: str
    method: str
    other: str

    def sentence(self, rows: Rows, system: str) -> str | None:
        """What it is, None without both methods."""
        above, below = (rows.values(system, self.metric, name) for name in (self.method, self.other))
        shared = sorted(set(above) & set(below))
        if not shared:
            return None
        ratios = [above[seed] / below[seed] for seed in shared]
        spread = stdev(ratios) if len(ratios) > 1 else None
        words = {"nmse": "normalised MSE", "crps": "CRPS", "mse": "MSE"}[self.metric]
        return f"{words} of {self.method} / {self.other}: {format_value(fmean(ratios), spread)}."


RATIOS = (
    Ratio("nmse", "phdme", "diffusion"),
    Ratio("nmse", "phdme", "gp_rollout"),
    Ratio("nmse", "phdme", "phdme_oracle"),
    Ratio("crps", "phdme", "gp_rollout"),
    Ratio("crps", "phdme_rollout", "gp_rollout"),
    Ratio("mse", "gp_rollout", "neural_ode"),
)


def part_section(rows: Rows, picture: MakePath) -> Section:
    """Accuracy, calibration and physics of one part, with a picture of all seeds for each system."""
    pictures, sentences = [], []
    for system in rows.systems():
        found = rows.by_method(system, "nmse")
        if found:
            floor = rows.values(system, "nmse", "reference")
            path = figures.metric_by_method(
                picture(f"nmse_{rows.experiment}_{system}"),
                found,
                Labels(x="normalised MSE of the forecast mean"),
                fmean(floor.values()) if floor else None,
            )
            pictures.append(Picture(path, f"{system.replace('_', ' ')}: one dot a seed, a bar at the mean"))
        ratios = [ratio.sentence(rows, system) for ratio in RATIOS]
        sentences += [sentence for sentence in ratios if sentence]
    metrics = ("nmse", "mse", "crps", "spread_skill", "coverage", "band_width", "energy_drift", "mass_drift")
    words = " ".join(sentences)
    if words:
        words = f"Mean and standard deviation over seeds of ratios within a seed. {words}"
    return Section(PARTS[rows.experiment], words, tuple(pictures), metrics, (rows.experiment,))


def cost_section(parts: Mapping[str, Rows], picture: MakePath) -> Section | None:
    """Accuracy against cost of a forecast, and how close generators come to the posterior predictive."""
    pictures = {}
    for name in (name for name in FIELDS if name in parts):
        (system,) = parts[name].systems()
        points, calls = cost_points(parts[name], system, "crps")
        if points:
            labels = Labels(x="seconds a forecast", y="CRPS [deviation of the field]", panels=tuple(map(str, calls)))
            path = figures.accuracy_against_cost(picture(f"cost_{name}"), points, labels)
            caption = f"{system.replace('_', ' ')}: numbers are calls of the network; a mean rollout has no spread"
            pictures[name] = Picture(path, caption)
    if not pictures:
        return None
    text = (
        "Why diffusion, if the prior can be rolled out? Each point is a forecast of the same test trajectories: the "
        "mean rollout, sampled rollouts, and generators with few or many calls of their network. The energy distance "
        "says how far the samples of a generator are from those of the rollouts, which it amortises; that of the "
        "sampled rollouts is between two sets of rollouts."
    )
    metrics = ("seconds_per_forecast", "nfe", "energy_distance", "crps", "energy_score", "spread_skill")
    return Section("Accuracy against cost", text, tuple(pictures.values()), metrics, tuple(pictures))


def cost_points(rows: Rows, system: str, metric: str) -> tuple[dict[str, tuple[list[float], list[float]]], list[int]]:
    """Line of the picture -> mean seconds and mean errors of its settings, in order; and the numbers of calls."""
    found = (row for row in rows.rows if (row.metric, row.split) == ("seconds_per_forecast", "test"))
    costed = {row.label: row for row in found}
    lines: dict[str, list[ResultRow]] = {}
    for row in sorted(costed.values(), key=lambda row: row.settings.get(CALLS, 0)):
        lines.setdefault(row.method if CALLS in row.settings else row.label, []).append(row)
    columns = ("seconds_per_forecast", metric)
    points = {}
    for name, line in lines.items():
        means = [[fmean(rows.values(system, of, row.method, row.settings).values()) for row in line] for of in columns]
        points[name] = (means[0], means[1])
    return points, sorted({row.settings[CALLS] for row in costed.values() if CALLS in row.settings})


def ablation_section(rows: Rows, picture: MakePath) -> Section:
    """One change at a time: curves over what is observed and over the residual's weight, bars for the rest."""
    (system,) = rows.systems()
    drawn = []
    for name, key, default, scale, title, methods in CURVES:
        found = {method: rows.curve(system, "nmse", method, key, default) for method in methods}
        curves = {
            method: {float(scale * value): seeds for value, seeds in curve.items()}
            for method, curve in found.items()
            if len(curve) > 1
        }
        if curves:
            labels = Labels(x=title, y="normalised MSE")
            drawn.append(Picture(figures.metric_over_setting(picture(f"ablation_{name}"), curves, labels), title))
    for name, (caption, bars) in GROUPS.items():
        shown: dict[str, list[float | None]] = {}
        for method, settings in bars:
            values = rows.values(system, "nmse", method, settings)
            if values:
                shown[label_of(method, settings).replace(" (", "\n(")] = [*values.values()]
        if len(shown) > 1:
            path = picture(f"ablation_{name}")
            drawn.append(Picture(figures.metric_by_method(path, shown, Labels(x="normalised MSE")), caption))
    text = (
        "From four trajectories, one per cent of noise, all 64 points and a residual weight of 0.1, one change at a "
        "time. Evidence gains compare the given structure with others on the same data; above 10 nats the fit says "
        "that the structure is wrong. Coverage of the shifted split is that under initial states from another family."
    )
    metrics = ("nmse", "crps", "coverage", "evidence_gain")
    return Section(PARTS["ablations"], text, tuple(drawn), metrics, ("ablations",))


def read_results(folder: Path) -> dict[str, Rows]:
    """Rows of the parts found below a folder; runs that validate are left out.

    Raises:
      InputError: there are none.
    """
    found = read_parts([file.parent for file in sorted(folder.glob("*/results.jsonl"))], tuple(PARTS))
    if not found:
        raise InputError(
            f"{folder}: no folder in it holds results of {', '.join(PARTS)}; expected the folder of committed results "
            "or one of run folders"
        )
    return found


def make_page(results: Path, workdir: Path) -> Path:
    """Read the rows, draw, write the page; the same rows give the same page.

    Args:
      results: folder of the parts' folders.
      workdir: folder to write.
    Returns:
      path of the report.
    Raises:
      InputError: no part was found, or the folder to write is that of a run.
    """
    parts = read_results(results)
    begin_page(workdir, [row for part in parts.values() for row in part.rows])

    def picture(name: str) -> Path:
        return workdir / "figures" / f"{name}.png"

    sections = [part_section(part, picture) for name, part in parts.items() if name != "ablations"]
    costs = cost_section(parts, picture)
    sections += [costs] if costs else []
    sections += [ablation_section(parts["ablations"], picture)] if "ablations" in parts else []
    missing = [title for name, title in PARTS.items() if name not in parts]
    if missing:
        sections.insert(0, Section("Missing", f"No rows were found of: {', '.join(missing)}."))
    return build_report(workdir, "PHDME: the whole study", sections)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the page from the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)

    def make() -> None:
        parser = CommandParser(prog="python -m experiments.phdme_study", description="The whole study on one page.")
        default = Path(__file__).parent / "results"
        parser.add_argument(
            "--results", type=folder, default=default, metavar="DIR", help="folder of the parts' folders"
        )
        parser.add_argument("--workdir", type=folder, default=Path("runs/phdme_study"), metavar="DIR", help="to write")
        options = parser.parse_args(given)
        path = make_page(options.results, options.workdir)
        print_table(read_rows(options.workdir / "results.jsonl"), ("nmse", "crps", "coverage"))
        print(f"report: {path}")

    return run_main(make)


if __name__ == "__main__":
    raise SystemExit(main())
