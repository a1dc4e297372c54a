"""Priors of particles and of fields on one page: from the rows of its parts, nothing trained.

    python -m experiments.priors_study --workdir runs/priors_study
    python -m experiments.priors_study --workdir runs/priors_study runs/priors_particles_laptop

Without run folders the committed results are read. What has no rows is left out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments import priors_fields, priors_forecasts, priors_particles, priors_prediction
from experiments.report.parts import Rows, begin_page, page_command, require_parts
from experiments.report.prior_ratios import TEST, derived_rows, finding, ratio_picture, ratios_of
from phdme_jax.app.page import Picture, Section, build_report


class Part(NamedTuple):
    """A study on the page.

    Attributes:
      title: of its sections.
      errors: metrics whose ratios are formed and drawn; the first ones stand in the main finding.
      laws: metrics of closeness to the data.
      floored: those of the errors of which the data have some.
      headline: how many of the errors stand in the main finding.
    """

    title: str
    errors: tuple[str, ...]
    laws: tuple[str, ...]
    floored: tuple[str, ...] = ()
    headline: int = 4


COSTS = ("nfe", "seconds_per_sample", "train_seconds", "seconds_per_update")
PARTS: dict[str, Part] = {
    priors_particles.STUDY.name: Part(
        priors_particles.STUDY.title,
        ("energy_error", "momentum_error", "trajectory_error", "dynamic_error", "velocity_error"),
        (
            "mmd",
            "wasserstein_energy",
            "wasserstein_momentum",
            "wasserstein_distance",
            "marginal_score",
            "classification_score",
            "prediction_score",
        ),
    ),
    priors_fields.STUDY.name: Part(
        priors_fields.STUDY.title,
        ("residual_excess", "residual_rms", "residual_rms_unseen", "mass_error", "energy_error"),
        ("mmse", "smse", "sliced_wasserstein", "spectrum_error"),
        ("residual_rms", "residual_rms_unseen"),
        headline=2,
    ),
    priors_prediction.STUDY.name: Part(
        priors_prediction.STUDY.title,
        ("ade", "fde", "energy_error", "momentum_error", "dynamic_error"),
        ("ade_of_mean", "fde_of_mean", "ade_best", "fde_best"),
        headline=2,
    ),
    priors_forecasts.STUDY.name: Part(
        priors_forecasts.STUDY.title,
        ("rmse", "residual_excess", "residual_rms", "mass_error", "energy_error"),
        ("nmse", "crps", "energy_score", "spread_skill"),
        ("residual_rms",),
        headline=1,
    ),
}
COLUMNS = ("energy_error", "momentum_error", "trajectory_error", "dynamic_error", "residual_rms", "rmse", "ade", "fde")
OBEDIENCE = (
    "Ratios are to diffusion without priors, within a seed; of residuals the data's own, the error of the scheme, is "
    "subtracted from both. Blurred fields can have less of a residual than the data: residual_excess, which is told "
    "from the residual of the solution that each field stands for, has a floor of zero. The reference row is the "
    "data's floor. A projection fixes what it projects on: trajectories, steps and laws decide."
)
LAW = (
    "Distances to unseen examples; the reference row is the floor that sampling leaves. A classification score of "
    "0.693 is chance, the best there is; a prediction score is an error."
)
COST = "Calls of the network a sample, seconds with compilation in them; training apart."
CAPTION = "Means over seeds; left of the dotted line is better; errors below a thousandth are drawn there."


def main_finding(parts: dict[str, Rows]) -> Section:
    """What the rows say, by rule."""
    sentences = []
    for name, part in parts.items():
        known = PARTS[name]
        for system in part.systems():
            words = finding(part, system, known.errors[: known.headline])
            if words:
                sentences.append(f"{known.title}, {system}: errors over those without priors. {words}.")
    return Section("Main finding", "\n\n".join(sentences) or "No part has a method beside the one without priors.")


def part_sections(part: Rows, system: str, workdir: Path) -> list[Section]:
    """Obedience, closeness and cost of one system."""
    known, title = PARTS[part.experiment], f"{PARTS[part.experiment].title}, {system}"
    ratios = {metric: ratios_of(part, system, metric) for metric in known.errors}
    ratios = {metric: found for metric, found in ratios.items() if found}
    pictures: tuple[Picture, ...] = ()
    if ratios:
        path = workdir / "figures" / f"ratios_{part.experiment}_{system}.png"
        pictures = (Picture(ratio_picture(path, ratios, f"{system}: errors"), CAPTION),)
    shown = [metric for metric in known.errors if any(row.metric == metric for row in part.rows)]
    columns = tuple(name for metric in shown for name in (metric, f"{metric}_ratio"))
    where = ((part.experiment,), (TEST,), (system,))
    return [
        Section(f"{title}: errors", OBEDIENCE, pictures, columns, *where),
        Section(f"{title}: nearness to the data", LAW, (), known.laws, *where),
        Section(f"{title}: cost", COST, (), COSTS, (part.experiment,), (TEST, "train"), (system,)),
    ]


def make_page(folders: Sequence[Path], workdir: Path) -> Path:
    """Read the rows, derive ratios, draw, write the page; the same rows give the same page.

    Args:
      folders: of runs, or of committed results.
      workdir: folder to write.
    Returns:
      path of the report.
    Raises:
      InputError: no folder holds rows of a part, or the folder to write is that of a run.
    """
    parts = require_parts(folders, tuple(PARTS))
    parts = {
        name: Rows(name, [*part.rows, *derived_rows(part, PARTS[name].errors, PARTS[name].floored)])
        for name, part in parts.items()
    }
    begin_page(workdir, [row for part in parts.values() for row in part.rows])
    sections = [main_finding(parts)]
    for part in parts.values():
        for system in part.systems():
            sections += part_sections(part, system, workdir)
    return build_report(workdir, "Priors of examples: symmetry and conservation", sections)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the page from the command line; returns the exit code."""
    parts = tuple(PARTS), COLUMNS
    return page_command("priors_study", "Priors on one page.", make_page, main_finding, parts, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
