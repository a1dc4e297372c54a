"""Options of fields, several equations in one study: encodings, and networks padded as the ends of each want it."""

from typing import Any

from ml_collections import ConfigDict

from experiments.data.cases import equations_of_case

CIRCULAR, PERIODIC = "circular", "periodic"  # see `phdme_jax.diffusion.unet.UNetConfig`


def options_of_case(config: ConfigDict, case: str) -> dict[str, Any]:
    """Groups of options for the methods.

    Where an axis is circular, the plain network differs from the one that commutes with translations in that it knows
    where each place is; elsewhere it is the `network`, and no network commutes with the symmetry.

    Args:
      config: groups `network`, `dilated` and `layouts`: of each case `padding`, one for each axis, and `logarithms`,
        fields that networks see the logarithm of.
      case: name of the equations.
    Returns:
      the groups, with `data.kinds`, `network` and, where an axis is circular, `symmetric_network`.
    """
    options, layout = config.to_dict(), config.layouts[case].to_dict()
    fields, padding = equations_of_case(config, case).fields, tuple(layout["padding"])
    kinds = tuple("log" if name in layout["logarithms"] else "linear" for name in fields)
    options |= {"data": {**options["data"], "kinds": kinds}}
    dilated = options.pop("dilated")
    if CIRCULAR not in padding:
        return {**options, "network": {**options["network"], "padding": padding}}
    placed = tuple(PERIODIC if mode == CIRCULAR else mode for mode in padding)
    # places of a circle are told apart by a patch
    patch = tuple(1 if mode == CIRCULAR else dilated["patch"] for mode in padding)
    return {
        **options,
        "network": {**dilated, "patch": patch, "padding": placed},
        "symmetric_network": {**dilated, "patch": patch, "padding": padding},
    }
