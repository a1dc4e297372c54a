"""The whole study of PHDME on one page: every table and figure from the result rows of its parts, nothing trained.

    python -m experiments.phdme_study
    python -m experiments.phdme_study --results runs --workdir runs/phdme_study

Each folder below --results that holds the `results.jsonl` of a part is read; parts without rows are named as missing.
"""

import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.ablations import STRUCTURES, VARIANTS
from phdme_jax.app import figures
from phdme_jax.app.command import CommandParser, run_main
from phdme_jax.app.drawing import Labels
from phdme_jax.app.page import Picture, Section, build_report
from phdme_jax.app.rows import ResultRow, append_rows, read_rows
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
COSTED = ("phdme", "phdme_rollout")


class Rows:
    """Result rows of one part of the study."""

    def __init__(self, experiment: str, rows: Iterable[ResultRow]) -> None:
        self.experiment = experiment
        self.rows = [row for row in rows if row.experiment == experiment]

    def systems(self) -> list[str]:
        """Systems in order of appearance."""
        return list(dict.fromkeys(row.system for row in self.rows))

    def values(self, system: str, metric: str, method: str, split: str = "test") -> dict[int, float]:
        """Finite values by seed."""
        return {
            row.seed: row.value
            for row in self.rows
            if (row.system, row.metric, row.method, row.split) == (system, metric, method, split)
            and row.value is not None
        }

    def by_method(self, system: str, metric: str) -> dict[str, list[float | None]]:
        """Values of the test over seeds, failed ones as None, of the methods that are compared."""
        found: dict[str, list[float | None]] = {}
        for row in self.rows:
            if (row.system, row.metric, row.split) == (system, metric, "test") and not _derived(row.method):
                found.setdefault(row.method, []).append(row.value)
        return found


def _derived(method: str) -> bool:
    """Whether the rows are the reference's, or those of the comparison of costs."""
    return method in ("reference", "gp_rollout_mean", "gp_rollout_sampled") or "_calls_" in method


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
        spread = statistics.stdev(ratios) if len(ratios) > 1 else None
        words = {"nmse": "normalised MSE", "crps": "CRPS", "mse": "MSE"}[self.metric]
        return f"{words} of {self.method} / {self.other}: {format_value(statistics.fmean(ratios), spread)}."


RATIOS = (
    Ratio("nmse", "phdme", "diffusion"),
    Ratio("nmse", "phdme", "gp_rollout"),
    Ratio("nmse", "phdme", "phdme_oracle"),
    Ratio("crps", "phdme", "gp_rollout"),
    Ratio("crps", "phdme_rollout", "gp_rollout"),
    Ratio("mse", "gp_rollout", "neural_ode"),
)


def part_section(rows: Rows, picture: Callable[[str], Path]) -> Section:
    """Accuracy, calibration and physics of one part, with a picture of all seeds for each system."""
    pictures, sentences = [], []
    for system in rows.systems():
        found = rows.by_method(system, "nmse")
        if found:
            floor = rows.values(system, "nmse", "reference")
            path = figures.metric_by_method(
                picture(f"nmse_{rows.experiment}_{system}"), found, Labels(x="normalised MSE of the forecast mean"),
                statistics.fmean(floor.values()) if floor else None,
            )  # fmt: skip
            pictures.append(Picture(path, f"{system.replace('_', ' ')}: one dot a seed, a bar at the mean"))
        ratios = [ratio.sentence(rows, system) for ratio in RATIOS]
        sentences += [sentence for sentence in ratios if sentence]
    metrics = ("nmse", "mse", "crps", "spread_skill", "coverage", "band_width", "energy_drift", "mass_drift")
    words = " ".join(sentences)
    if words:
        words = f"Mean and standard deviation over seeds of ratios within a seed. {words}"
    return Section(PARTS[rows.experiment], words, tuple(pictures), metrics, (rows.experiment,))


def cost_section(parts: Mapping[str, Rows], picture: Callable[[str], Path]) -> Section | None:
    """Accuracy against cost of a forecast, and how close generators come to the posterior predictive."""
    pictures = []
    shown = []
    for name in FIELDS:
        if name not in parts:
            continue
        rows = parts[name]
        (system,) = rows.systems()
        points, calls = _cost_points(rows, system, "crps")
        if not points:
            continue
        path = figures.accuracy_against_cost(
            picture(f"cost_{name}"), points,
            Labels(
                x="seconds a forecast", y="CRPS [deviation of the field]", panels=tuple(str(number) for number in calls)
            ),
        )  # fmt: skip
        caption = f"{system.replace('_', ' ')}: numbers are calls of the network; gp_rollout_mean has no spread"
        pictures.append(Picture(path, caption))
        shown.append(name)
    if not pictures:
        return None
    text = (
        "Why diffusion, if the prior can be rolled out? Each point is a forecast of the same test trajectories: the "
        "mean rollout, sampled rollouts, and generators with few or many calls of their network. The energy distance "
        "says how far the samples of a generator are from those of the rollouts, which it amortises; that of "
        "gp_rollout_sampled is between two sets of rollouts."
    )
    metrics = ("seconds_per_forecast", "nfe", "energy_distance", "crps", "energy_score", "spread_skill")
    return Section("Accuracy against cost", text, tuple(pictures), metrics, tuple(dict.fromkeys(shown)))


def _cost_points(rows: Rows, system: str, metric: str) -> tuple[dict[str, tuple[list[float], list[float]]], list[int]]:
    """Method -> mean seconds and mean error of its settings; and the numbers of calls."""
    methods = {row.method for row in rows.rows if row.metric == "seconds_per_forecast"}
    calls = sorted({int(method.rsplit("_", 1)[1]) for method in methods if "_calls_" in method})
    settings = {
        "gp_rollout_mean": ["gp_rollout_mean"],
        "gp_rollout_sampled": ["gp_rollout_sampled"],
        **{name: [f"{name}_calls_{number}" for number in calls] for name in COSTED},
    }
    points = {}
    for name, present in settings.items():
        present = [one for one in present if one in methods]
        if present:
            columns = [
                [statistics.fmean(rows.values(system, which, one).values()) for one in present]
                for which in ("seconds_per_forecast", metric)
            ]
            points[name] = (columns[0], columns[1])
    return points, calls


def ablation_sections(rows: Rows, picture: Callable[[str], Path]) -> list[Section]:
    """One change at a time: curves over what is observed and over the residual's weight, bars for the rest."""
    (system,) = rows.systems()

    def values(name: str) -> list[float]:
        return list(rows.values(system, "nmse", name).values())

    def curves(word: str, base: float, methods: Sequence[str]) -> dict[str, dict[float, list]]:
        found = {}
        for method in methods:
            prefix = f"{method}_{word}_"
            names = {float(name.removeprefix(prefix)): name for name in VARIANTS if name.startswith(prefix)}
            curve = {setting: values(name) for setting, name in {base: method, **names}.items()}
            found[method] = {setting: seeds for setting, seeds in curve.items() if seeds}
        return {method: curve for method, curve in found.items() if len(curve) > 1}

    asked = (
        ("trajectories", "observed trajectories", curves("trajectories", 4.0, ("phdme", "gp_rollout", "diffusion"))),
        ("sites", "observed points a frame", curves("sites", 64.0, ("gp_rollout",))),
        ("noise", "noise [% of the field]", curves("noise", 1.0, ("gp_rollout",))),
        ("weight", "weight of the physics residual", _weights(values)),
    )
    drawn = []
    for name, words, found in asked:
        if found:
            labels = Labels(x=words, y="normalised MSE")
            drawn.append(Picture(figures.metric_over_setting(picture(f"ablation_{name}"), found, labels), words))
    groups = {
        "parts": (
            "phdme",
            "phdme_residual_weight_0",
            "diffusion_augmented",
            "diffusion_physics",
            "diffusion",
            "gp_rollout",
        ),
        "residual": (
            "phdme",
            "phdme_residual_target_zero",
            "phdme_uncertainty_off",
            "phdme_uncertainty_shuffled",
        ),
        "structures": ("gp_rollout", *(f"gp_rollout_{name}" for name in list(STRUCTURES)[1:])),
    }
    captions = {"parts": "augmentation and residual", "residual": "target and weights of the residual",
                "structures": "structures, right and wrong"}  # fmt: skip
    for name, methods in groups.items():
        shown: dict[str, list[float | None]] = {method: [*values(method)] for method in methods if values(method)}
        if len(shown) > 1:
            path = picture(f"ablation_{name}")
            drawn.append(Picture(figures.metric_by_method(path, shown, Labels(x="normalised MSE")), captions[name]))
    text = (
        "From four trajectories, one per cent of noise, all 64 points and a residual weight of 0.1, one change at a "
        "time. Evidence gains compare the given structure with others on the same data; above 10 nats the fit says "
        "that the structure is wrong. Coverage of the shifted split is that under initial states from another family."
    )
    metrics = ("nmse", "crps", "coverage", "evidence_gain")
    return [Section(PARTS["ablations"], text, tuple(drawn), metrics, ("ablations",))]


def _weights(values: Callable[[str], list[float]]) -> dict[str, dict[float, list]]:
    """Residual weights, all with the same random draws."""
    names = {0.0: "phdme_residual_weight_0", 0.01: "phdme_residual_weight_0_01", 0.1: "phdme",
             1.0: "phdme_residual_weight_1", 10.0: "phdme_residual_weight_10"}  # fmt: skip
    curve = {weight: values(name) for weight, name in names.items() if values(name)}
    return {"phdme": curve} if len(curve) > 1 else {}


def read_parts(folder: Path) -> dict[str, Rows]:
    """Rows of the parts found below a folder.

    Raises:
      InputError: there are none.
    """
    files = sorted(folder.glob("*/results.jsonl"))
    rows = [row for file in files for row in read_rows(file) if row.experiment in PARTS]
    found = {name: Rows(name, rows) for name in PARTS}
    found = {name: part for name, part in found.items() if part.rows}
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
    """
    parts = read_parts(results)
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "results.jsonl").unlink(missing_ok=True)
    append_rows(workdir / "results.jsonl", [row for part in parts.values() for row in part.rows])

    def picture(name: str) -> Path:
        return workdir / "figures" / f"{name}.png"

    sections = [part_section(part, picture) for name, part in parts.items() if name != "ablations"]
    costs = cost_section(parts, picture)
    sections += [costs] if costs else []
    sections += ablation_sections(parts["ablations"], picture) if "ablations" in parts else []
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
        parser.add_argument("--results", type=Path, default=default, metavar="DIR", help="folder of the parts' folders")
        parser.add_argument("--workdir", type=Path, default=Path("runs/phdme_study"), metavar="DIR", help="to write")
        options = parser.parse_args(given)
        path = make_page(options.results, options.workdir)
        print_table(read_rows(options.workdir / "results.jsonl"), ("nmse", "crps", "coverage"))
        print(f"report: {path}")

    return run_main(make)


if __name__ == "__main__":
    raise SystemExit(main())
