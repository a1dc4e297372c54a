"""One-step models and questions over several problems on one page: from the rows of its parts, nothing trained.

    python -m experiments.piddm_study --workdir runs/piddm_study
    python -m experiments.piddm_study --workdir runs/piddm_study runs/poisson_2d_laptop runs/burgers_laptop

Without run folders the committed results are read. What has no rows is left out.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from experiments import burgers, darcy_binary, darcy_one_step, helmholtz_2d, piddm_ablations, poisson_2d
from experiments.report.one_step import (
    LOSS,
    TEST,
    derived_rows,
    finding,
    floor_of,
    method_picture,
    points_of,
    question_splits,
    systems_of,
)
from experiments.report.parts import Rows, begin_page, page_command, require_parts
from phdme_jax.app.drawing import Labels
from phdme_jax.app.page import Picture, Section, build_report

STUDIES = (poisson_2d.STUDY, helmholtz_2d.STUDY, darcy_binary.STUDY, darcy_one_step.STUDY, burgers.STUDY)
PROBLEMS = {study.name: study.title.removesuffix(", in one call") for study in STUDIES}
PARTS = {**PROBLEMS, piddm_ablations.STUDY.name: piddm_ablations.STUDY.title}
CAPTION = "means over seeds; hollow marks: the solution computed anew"
SPREAD = (
    "A residual is worth nothing where the distribution collapses: the residual, also by a stencil that no method was "
    "shown, stands beside the errors of spread (SMSE, one where all samples are alike) and spectrum. Ratios are to "
    "the teacher, which a student can share its noise with, within a seed."
)
NEAR = (
    "Distances to unseen examples, field by field; the reference is as many other examples of the data, the floor "
    "that sampling leaves. The energy distance is unbiased and may be negative."
)
COST = (
    "Calls of the network a sample, gradients through it apart from these; seconds a sample, of answers "
    "without compilation; seconds of training with the teacher and its pairs in it."
)
SPREAD_CAPTION = (
    "Residual against the error of the spread, left and low is better; dotted: what sampling leaves of the spread. A "
    f"collapse lies at the right. Triangles: a residual of rounding, off the axis; {CAPTION}."
)
FRONTIER_CAPTION = f"Accuracy against seconds; dotted: what sampling leaves of the MMSE; {CAPTION}."
PHYSICS = ("residual_rms", "residual_rms_ratio", "residual_rms_unseen", "smse", "spectrum_error")
DISTANCES = ("mmse", "sliced_wasserstein", "energy_distance")
COSTS = ("nfe", "backward_calls", "seconds_per_sample", "train_seconds", "seconds_per_update", "memory")
COLUMNS = ("residual_rms", "smse", "crps", "coverage")

MakePath = Callable[[str], Path]


def main_finding(parts: dict[str, Rows]) -> Section:
    """What the rows say, by rule: the student with the least residual among those that keep the distribution."""
    asked = [part for name, part in parts.items() if name in PROBLEMS]
    found = [(part, *finding(part, system)) for part, system in systems_of(asked)]
    judged = [lowers for _, lowers, _ in found if lowers is not None]
    lead = (
        f"On {sum(judged)} of {len(judged)} problems a student lowers the residual of its teacher and keeps its spread "
        f"and spectrum (errors of both at most {LOSS:g} times the teacher's in every field)."
    )
    words = [f"{PARTS[part.experiment]}: {text}" for part, _, text in found if text]
    return Section("Main finding", "\n\n".join([lead, *words] if judged else words))


def _title(part: Rows, system: str) -> str:
    """Of a part, with the system where it has several."""
    words = PARTS[part.experiment]
    return f"{words}, {system}" if len(part.systems()) > 1 else words


def part_sections(part: Rows, system: str, picture: MakePath) -> list[Section]:
    """Physics beside spread, nearness and cost of one problem, and its questions."""
    title, name = _title(part, system), f"{part.experiment}_{system}"
    spread = Labels(x="SMSE, mean over fields", y="residual, rms")
    frontier = Labels(x="seconds a sample", y="MMSE, mean over fields")
    sections = []
    for words, text, metrics, drawn, axes, caption in (
        ("physics and spread", SPREAD, PHYSICS, ("smse", "residual_rms"), spread, SPREAD_CAPTION),
        ("nearness to the data", NEAR, DISTANCES, None, None, ""),
        ("cost", COST, COSTS, ("seconds_per_sample", "mmse"), frontier, FRONTIER_CAPTION),
    ):
        pictures: tuple[Picture, ...] = ()
        points = points_of(part, system, drawn) if drawn else {}
        if drawn and axes and points:
            floors = (floor_of(part, system, drawn[0]), floor_of(part, system, drawn[1]))
            path = method_picture(picture(f"{words.replace(' ', '_')}_{name}"), points, axes, floors)
            pictures = (Picture(path, caption),)
        sections.append(Section(f"{title}: {words}", text, pictures, metrics, (part.experiment,), (TEST,), (system,)))
    has_test = any(row.split == TEST and row.metric == "residual_rms" for row in part.rows)
    return [*(sections if has_test else []), *question_sections(part, system, picture)]


def question_sections(part: Rows, system: str, picture: MakePath) -> list[Section]:
    """Answers to every question, and their accuracy against seconds."""
    splits = question_splits(part)
    if not splits:
        return []
    pictures = []
    for split in splits:
        points = points_of(part, system, ("seconds_per_sample", "crps"), split)
        if points:
            labels = Labels(split.replace("_", " "), x="seconds a sample", y="CRPS [deviation of the field]")
            path = method_picture(picture(f"frontier_{part.experiment}_{system}_{split}"), points, labels)
            pictures.append(Picture(path, f"{labels.title}: accuracy against seconds; {CAPTION}"))
    text = "Scores of the fields that were not wholly observed; coverage is that of the whole of the hidden places."
    metrics = ("relative_l2", "crps", "coverage", "band_width", "spread_skill", "residual_rms")
    title = f"{_title(part, system)}: questions"
    return [Section(title, text, tuple(pictures), (*metrics, *COSTS[:3]), (part.experiment,), tuple(splits), (system,))]


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
    parts = {name: Rows(name, [*part.rows, *derived_rows(part)]) for name, part in parts.items()}
    begin_page(workdir, [row for part in parts.values() for row in part.rows])

    def picture(name: str) -> Path:
        return workdir / "figures" / f"{name}.png"

    sections = [main_finding(parts)]
    for part, system in systems_of(parts.values()):
        sections += part_sections(part, system, picture)
    return build_report(workdir, "One-step models of known equations, and questions about them", sections)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the page from the command line; returns the exit code."""
    parts = tuple(PARTS), COLUMNS
    return page_command("piddm_study", "One-step models on one page.", make_page, main_finding, parts, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
