"""Tables of what is built in, from the registries, between `<!-- catalogue NAME -->` and `<!-- end -->` of a page."""

import re
from collections.abc import Callable

from phdme_jax.files import InputError
from phdme_jax.methods.table import METHODS
from phdme_jax.systems import EQUATIONS, SYSTEMS, make_equations, make_system

_MARKER = re.compile(r"(<!--\s*catalogue\s+(\w+)\s*-->).*?<!--\s*end\s*-->", re.DOTALL)


def _words(names: frozenset[str]) -> str:
    return ", ".join(sorted(name.replace("_", " ") for name in names))


def problems() -> str:
    """Every system and all known equations, with their fields and what they offer to methods."""
    lines = ["| problem | fields | what it offers |", "| --- | --- | --- |"]
    for name in (*SYSTEMS, *EQUATIONS):
        problem = make_system(name) if name in SYSTEMS else make_equations(name)
        fields = ", ".join(field.replace("_", " ") for field in problem.fields)
        lines.append(f"| `{name}` | {fields} | {_words(problem.offers)} |")
    return "\n".join(lines)


def methods() -> str:
    """Every method, with what it needs and what it learns from."""
    lines = ["| method | what it is | needs | teacher |", "| --- | --- | --- | --- |"]
    for name, method in METHODS.items():
        source = f" ({method.source})" if method.source else ""
        teacher = f"`{method.teacher}`" if method.teacher else ""
        needs = "; or ".join(_words(parts) for parts in (method.needs, method.needs_instead) if parts)
        lines.append(f"| `{name}` | {method.summary}{source} | {needs} | {teacher} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {"problems": problems, "methods": methods}


def fill_catalogue(text: str) -> str:
    """A page with its catalogues made anew; raises InputError for one that is not known."""

    def table(match: re.Match[str]) -> str:
        name = match.group(2)
        if name not in TABLES:
            raise InputError(f"no catalogue {name!r}; expected one of {', '.join(TABLES)}")
        return f"{match.group(1)}\n\n{TABLES[name]()}\n\n<!-- end -->"

    return _MARKER.sub(table, text)
