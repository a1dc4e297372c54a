"""The page of a run: `report.html` and `tables.md`, built from the run folder and from nothing else.

Numbers come from `results.jsonl`, pictures from the PNG files, words from `sections.json`, the rest from `config.json`
and `environment.json`. The page needs no other file and no network, and the same folder gives the same bytes:

    phdme report RUN_FOLDER
"""

import base64
import dataclasses
import html
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from phdme_jax.app.command import CommandParser, command_line, folder, run_main
from phdme_jax.app.rows import ResultRow, read_rows
from phdme_jax.app.tables import Table, escape_markdown, make_tables, print_table, render_html, render_markdown
from phdme_jax.files import InputError, atomic_write, flatten, read_json

_STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #f6f7f9; color: #1c2127; font: 16px/1.55 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 2rem 1.2rem 4rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 0 0 .6rem; }
section { background: #fff; border: 1px solid #e2e6ea; border-radius: 10px; padding: 1.2rem 1.4rem; margin: 1.2rem 0; }
p { max-width: 75ch; }
.facts { color: #55606b; margin: 0; max-width: none; }
.note { color: #55606b; font-size: .87rem; }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: #55606b; padding-bottom: .4rem; white-space: nowrap; }
th, td { padding: .32rem .7rem; text-align: right; white-space: nowrap; vertical-align: top; }
th { border-bottom: 2px solid #c9d0d6; font-weight: 600; }
th small { display: block; font-weight: 400; color: #55606b; }
th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left; }
tr.block td { border-top: 1px solid #c9d0d6; }
tbody tr:hover { background: #f3f6f9; }
td.best { font-weight: 700; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { color: #55606b; font-size: .87rem; margin-top: .3rem; max-width: 90ch; }
details { margin: .6rem 0; }
summary { cursor: pointer; font-weight: 600; }
table.record td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
@media print { body { background: #fff; } section { border: 0; padding: 0; break-inside: avoid; } }
""".strip()

_NOTE = (
    "Bold: best mean among the methods of one system and split, the reference data's own row aside; a difference "
    "smaller than the ± is no evidence. n: examples behind each seed's value. Seeds that gave no finite value are "
    "counted as failed."
)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG of the run folder and the sentence under it. `file` is the path, absolute or relative to the run folder."""

    file: str | Path
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
      title: heading.
      text: paragraphs, separated by an empty line.
      pictures: pictures in order.
      metrics: columns of a table put under the text; empty for none. A name stands for its qualified names too.
      experiments: whose rows the table shows; empty for all.
      splits: on which; empty for all.
      systems: of which; empty for all.
    """

    title: str
    text: str = ""
    pictures: tuple[Picture, ...] = ()
    metrics: tuple[str, ...] = ()
    experiments: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()


def build_report(run_folder: Path | str, title: str | None = None, sections: Sequence[Section] | None = None) -> Path:
    """Writes `report.html` and `tables.md` into a run folder.

    Args:
      run_folder: the folder with `results.jsonl`.
      title: heading of the page. Title and sections are kept in `sections.json`; None takes what was kept, or a default
        that shows every picture.
      sections: parts of the page; a table of all numbers, the configuration and the environment always follow.

    Returns:
      Path of `report.html`.

    Raises:
      InputError: the folder holds no results.
    """
    folder = Path(run_folder)
    if not (folder / "results.jsonl").is_file():
        raise InputError(f"{folder}: holds no results.jsonl; expected the folder of a run (--workdir of an experiment)")
    rows = read_rows(folder / "results.jsonl")
    title, sections = _words(folder, title, sections)
    tables = make_tables(rows)
    markdown = "\n".join([f"# {escape_markdown(title)}\n", *map(render_markdown, tables), f"{_NOTE}\n"])
    page = _page(folder, title, sections, rows, tables)
    for name, text in (("tables.md", markdown), ("report.html", page)):
        with atomic_write(folder / name) as file:
            file.write(text.encode("utf-8", "backslashreplace"))
    return folder / "report.html"


def main(arguments: Sequence[str] | None = None, program: str = "phdme report") -> int:
    """Rebuilds the report of a run folder and prints its tables; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)

    def rebuild() -> None:
        parser = CommandParser(prog=program, description="Rebuilds the report of a run.")
        parser.add_argument(
            "run_folder", type=folder, metavar="RUN_FOLDER", help="folder of a run, with its results.jsonl"
        )
        run_folder = parser.parse_args(given).run_folder
        path = build_report(run_folder)
        print_table(read_rows(run_folder / "results.jsonl"))
        print(f"report: {path}")

    return run_main(rebuild, command_line(program, given))


def _words(folder: Path, title: str | None, sections: Sequence[Section] | None) -> tuple[str, tuple[Section, ...]]:
    """Title and sections: those given are kept in `sections.json`, those not given are taken from there."""
    path = folder / "sections.json"
    kept = read_json(path)
    if sections is None and kept.get("sections") is not None:
        sections = _kept_sections(path, kept["sections"])
    names = (title, kept.get("title"), read_json(folder / "config.json").get("experiment"), folder.resolve().name)
    title = " ".join(str(next(filter(None, names), "")).split())
    if sections is not None:
        sections = [dataclasses.replace(part, pictures=_relative(folder, part.pictures)) for part in sections]
    parts = None if sections is None else [dataclasses.asdict(part) for part in sections]
    with atomic_write(path) as file:
        file.write((json.dumps({"title": title, "sections": parts}, indent=2) + "\n").encode("utf-8"))
    return title, _default_sections(folder) if sections is None else tuple(sections)


def _kept_sections(path: Path, parts: Any) -> list[Section]:
    try:
        sections = [
            Section(**part | {"pictures": tuple(Picture(**picture) for picture in part["pictures"])}) for part in parts
        ]
        words = [
            word
            for part in sections
            for word in (part.title, part.text, *part.metrics, *part.experiments, *part.splits, *part.systems)
        ]
        words += [word for part in sections for picture in part.pictures for word in (picture.file, picture.caption)]
        if all(isinstance(word, str) for word in words):
            return sections
    except (TypeError, KeyError):
        pass
    raise InputError(f"{path}: holds no sections of a page; remove it, and the page shows every picture of the folder")


def _default_sections(folder: Path) -> tuple[Section, ...]:
    """Every picture of the folder under its file name."""
    found = sorted(path.relative_to(folder) for path in folder.rglob("*.png"))
    pictures = tuple(Picture(path.as_posix(), path.stem.replace("_", " ")) for path in found)
    return (Section("Figures", pictures=pictures),) if pictures else ()


def _relative(folder: Path, pictures: Iterable[Picture]) -> tuple[Picture, ...]:
    """Pictures with paths relative to the run folder, so that the folder may be moved."""
    paths = [(picture, _inside(folder, picture.file)) for picture in pictures]
    top = folder.resolve()
    return tuple(
        dataclasses.replace(picture, file=path.relative_to(top).as_posix() if path else str(picture.file))
        for picture, path in paths
    )


def _inside(folder: Path, file: str | Path) -> Path | None:
    """Where a file lies below the run folder, links followed; None for what is missing or lies elsewhere."""
    for path in (Path(file), folder / file):
        try:
            if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
                return path.resolve()
        except (OSError, ValueError):  # a name that no file can have
            continue
    return None


def _page(
    folder: Path, title: str, sections: Sequence[Section], rows: Sequence[ResultRow], tables: Sequence[Table]
) -> str:
    config, environment = read_json(folder / "config.json"), read_json(folder / "environment.json")
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<title>{html.escape(title)}</title><link rel="icon" href="data:,">',
        f"<style>{_STYLE}</style></head><body><main>",
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="facts">{html.escape(_facts(config, environment, rows))}</p>',
    ]
    parts += [_section(folder, section, rows) for section in sections]
    body = "".join(render_html(table) for table in tables) or "<p>No results yet.</p>"
    parts.append(f'<section><h2>All numbers</h2>{body}<p class="note">{html.escape(_NOTE)}</p></section>')
    records = (("Configuration", config), ("Environment", environment))
    records_html = "".join(_record(name, record) for name, record in records if record)
    if records_html:
        parts.append(f"<section><h2>How it was made</h2>{records_html}</section>")
    return "\n".join([*parts, "</main></body></html>"]) + "\n"


def _facts(config: Mapping[str, Any], environment: Mapping[str, Any], rows: Sequence[ResultRow]) -> str:
    seeds = sorted({row.seed for row in rows})
    facts = [f"{len(seeds)} seed{'' if len(seeds) == 1 else 's'}", f"{len(rows)} numbers"]
    if "size" in config:
        facts.insert(0, f"size {config['size']}")
    if environment.get("device"):
        facts.append(str(environment["device"]))
    if environment.get("commit"):
        facts.append(f"commit {str(environment['commit'])[:10]}")
    if environment.get("command"):
        facts.append(f"made by: {environment['command']}")
    return " · ".join(facts)


def _section(folder: Path, section: Section, rows: Sequence[ResultRow]) -> str:
    parts = [f"<section><h2>{html.escape(section.title)}</h2>"]
    parts += [f"<p>{html.escape(text.strip())}</p>" for text in section.text.split("\n\n") if text.strip()]
    if section.metrics:
        shown = [row for row in rows if not section.experiments or row.experiment in section.experiments]
        shown = [row for row in shown if not section.splits or row.split in section.splits]
        shown = [row for row in shown if not section.systems or row.system in section.systems]
        parts += [render_html(table) for table in make_tables(shown, section.metrics)]
    for picture in section.pictures:
        path, caption = _inside(folder, picture.file), html.escape(picture.caption)
        if path is None:
            parts.append(f'<p class="note">(missing picture: {html.escape(str(picture.file))})</p>')
            continue
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        parts.append(f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">')
        parts.append(f"<figcaption>{caption}</figcaption></figure>")
    return "\n".join([*parts, "</section>"])


def _record(name: str, record: Mapping[str, Any]) -> str:
    lines = "".join(
        f"<tr><td>{html.escape(key)}</td><td>{html.escape(value if isinstance(value, str) else json.dumps(value))}</td>"
        "</tr>"
        for key, value in flatten(record).items()
    )
    return f'<details><summary>{name}</summary><table class="record"><tbody>{lines}</tbody></table></details>'


if __name__ == "__main__":
    raise SystemExit(main())
