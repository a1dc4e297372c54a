"""The host of a fit: stages end near the optimum, are not trained again, and what is kept is made once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phdme_jax.methods.base import Host
from phdme_jax.training.stages import Trainer

DATA = jnp.asarray(np.random.default_rng(0).normal(3.0, 0.1, (64, 2)))
NUMBERS = {"steps": 200, "batch": 16, "rate": 0.1, "ema_decay": 0.9}


def loss(params, example, key):
    return jnp.sum((params["a"] - example) ** 2), {}


def never(params, example, key):
    raise AssertionError("trained again")


@pytest.mark.slow
def test_a_stage_ends_at_the_mean_and_is_found_again_in_its_folder(tmp_path):
    host = Trainer(tmp_path / "training", "digest")
    assert isinstance(host, Host)
    start = {"a": jnp.zeros(2)}
    params, seconds = host.train("first", loss, start, DATA, jax.random.key(0), **NUMBERS)
    np.testing.assert_allclose(params["a"], DATA.mean(axis=0), atol=0.05)
    assert seconds > 0 and (tmp_path / "training" / "first").is_dir()
    again = Trainer(tmp_path / "training", "digest").train("first", never, start, DATA, jax.random.key(0), **NUMBERS)
    np.testing.assert_array_equal(again[0]["a"], params["a"])
    assert again[1] == seconds
    resumed = Trainer(tmp_path / "training", "digest")
    resumed.train("first", never, start, DATA, jax.random.key(0), **NUMBERS)
    (cost,), (found,) = host.costs.values(), resumed.costs.values()
    assert resumed.costs.keys() == host.costs.keys() and found == pytest.approx(cost)
    assert cost.seconds_per_update == pytest.approx(seconds / NUMBERS["steps"])
    assert cost.memory is not None and cost.memory > DATA.nbytes, "the data are among what an update holds"
    with pytest.raises(ValueError):
        Trainer(tmp_path / "training", "other").train("first", loss, start, DATA, jax.random.key(0), **NUMBERS)


def test_real_examples_take_their_share_of_a_batch():
    """Half of each batch is real: the optimum is between both means."""
    params, _ = Trainer().train(
        "mixed", loss, {"a": jnp.zeros(2)}, DATA, jax.random.key(0), real=DATA + 1.0, real_fraction=0.5, **NUMBERS
    )
    np.testing.assert_allclose(params["a"], DATA.mean(axis=0) + 0.5, atol=0.05)


def test_arrays_are_made_once_in_memory_and_once_on_disk(tmp_path):
    made = []

    def make():
        made.append(None)
        return {"x": np.arange(3.0), "share": np.asarray(0.25)}

    host = Trainer()
    assert host.keep("rollouts", make) is host.keep("rollouts", make) and len(made) == 1
    for _ in range(2):  # another process of the same seed
        found = Trainer(shared=tmp_path, suffix="_0").keep("rollouts", make)
        np.testing.assert_array_equal(found["x"], np.arange(3.0))
        assert float(found["share"]) == 0.25
    Trainer(digest="other", shared=tmp_path, suffix="_0").keep("rollouts", make)
    assert len(made) == 3, "a run that trains on something else takes nothing over"
    assert [path.name for path in tmp_path.iterdir()] == ["rollouts_0.npz"]
