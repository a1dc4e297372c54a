"""Goes."""

from experiments.vibrating_string import STUDY

get_config = STUDY.get_config
