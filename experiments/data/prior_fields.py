"""Options of fields, several equations in one study: encodings, and networks padded as the ends of each want it."""

from typing import Any

from ml_collections import ConfigDict

from experiments.data.cases import equations_of_case

RING, PLACED = "circular", "periodic"  # places alike, and each with a name


def options_of_case(config: ConfigDict, case: str) -> dict[str, Any]:
    """Groups of options for the methods.

    Where an axis is a ring, the plain network is the one that commutes with translations, but that each place knows
    where it is; elsewhere it is the `network`, and no network commutes with the symmetry.

    Args:
      config: groups `network`, `dilated` and `layouts`: of each case `padding`, one for each axis, and `logarithms`,
        fields that networks see the logarithm of.
      case: name of the equations.
    Returns:
      the groups, with `data.kinds`, `network` and, where an axis is a ring, `symmetric_network`.
    """
    options, layout = config.to_dict(), config.layouts[case].to_dict()
    fields, padding = equations_of_case(config, case).fields, tuple(layout["padding"])
    kinds = tuple("log" if name in layout["logarithms"] else "linear" for name in fields)
    options |= {"data": {**options["data"], "kinds": kinds}}
    dilated = options.pop("dilated")
    if RING not in padding:
        return {**options, "network": {**options["network"], "padding": padding}}
    placed = tuple(PLACED if mode == RING else mode for mode in padding)
    # places of a ring are told apart by a patch
    patch = tuple(1 if mode == RING else dilated["patch"] for mode in padding)
    return {
        **options,
        "network": {**dilated, "patch": patch, "padding": placed},
        "symmetric_network": {**dilated, "patch": patch, "padding": padding},
    }
