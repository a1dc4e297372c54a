"""Networks of one trajectory: a trained one is found again for the same data alone."""

import jax
import numpy as np
from ml_collections import ConfigDict

from phdme_jax.methods.baselines import windows as network_training
from phdme_jax.methods.baselines.neural_dynamics import NeuralField

TRAINING = ConfigDict({"windows": (3, 6), "steps": 5, "batch": 2, "rate": 1e-3})


def make(scale, key):
    return NeuralField(scale, 0, width=4, depth=1, key=key)


def test_a_kept_network_is_read_for_the_same_data_and_trained_anew_for_others(tmp_path, monkeypatch):
    times = np.linspace(0.0, 4.0, 40)
    parts = (np.stack([np.cos(times), -np.sin(times)], axis=1), times, np.zeros((40, 0)))
    path, key = tmp_path / "training" / "neural_ode_0.eqx", jax.random.key(0)
    first, seconds = network_training.train(make, parts, TRAINING, key, path)
    louder, _ = network_training.train(make, (10 * parts[0], *parts[1:]), TRAINING, key, path)
    assert len(list(path.parent.iterdir())) == 2
    trained = network_training.train_network
    monkeypatch.setattr(network_training, "train_network", None)
    again, same_seconds = network_training.train(make, parts, TRAINING, key, path)
    assert same_seconds == seconds
    one, other, loud = (jax.tree.leaves(field) for field in (first, again, louder))
    assert all(np.array_equal(left, right) for left, right in zip(one, other, strict=True))
    assert not all(np.array_equal(left, right) for left, right in zip(one, loud, strict=True))
    monkeypatch.setattr(network_training, "train_network", trained)
    network_training.train(make, parts, TRAINING, jax.random.key(1), path)
    assert len(list(path.parent.iterdir())) == 3
