"""Options of trajectories of particles, several worlds in one study."""

from typing import Any

from ml_collections import ConfigDict

from experiments.data.cases import equations_of_case


def options_of_case(config: ConfigDict, case: str) -> dict[str, Any]:
    """Groups of options for the methods; networks are told how many axes vectors have."""
    options, world = config.to_dict(), equations_of_case(config, case)
    dimension = len(world.fields) // 2
    kinds = ("linear",) * len(world.fields)
    sizes = {"dimension": dimension, "given_vectors": 2 if world.given_frames else 0}
    networks = {name: {**options[name], **sizes} for name in ("network", "symmetric_network")}
    return {**options, **networks, "data": {**options["data"], "kinds": kinds}}
