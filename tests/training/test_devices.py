"""Sharded jit, pmap and vmap against the step on one device, on eight virtual CPU devices.

The comparisons run in one subprocess, since the number of CPU devices is fixed when JAX starts; it prints one JSON
record of measured differences, which the tests read.
"""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
from phdme_jax import training

BATCH, STEPS = 16, 4
traces = {"count": 0}

def loss(params, example, key):
    traces["count"] += 1
    noise = jax.random.normal(key, example["x"].shape, example["x"].dtype)
    hidden = jnp.tanh((example["x"] + 0.1 * noise) @ params["first"])
    error = hidden @ params["second"] - example["y"]
    return jnp.mean(error**2), {"largest": jnp.max(jnp.abs(error))}

def init(seed):
    first, second = jax.random.split(jax.random.key(seed))
    return {"first": jax.random.normal(first, (5, 7)), "second": jax.random.normal(second, (7, 2))}

def difference(ours, theirs):
    def one(a, b):
        a, b = np.asarray(a, float), np.asarray(b, float)
        assert a.shape == b.shape, (a.shape, b.shape)
        return float(np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1e-300))
    return max(map(one, jax.tree.leaves(ours), jax.tree.leaves(theirs)))

key = jax.random.key(1)
dataset = {"x": jax.random.normal(key, (40, 5)), "y": jax.random.normal(jax.random.key(2), (40, 2))}
optimizer = training.make_optimizer(1e-2, 2, 100)
plain = training.make_train_step(loss, optimizer, 0.99)
named = training.make_train_step(loss, optimizer, 0.99, axis_name="device")
start = training.init_train_state(init(0), optimizer)
inputs = jax.jit(lambda step: training.step_inputs(training.draw_batch, dataset, key, step, BATCH))

def run(step, state, prepare=lambda batch, keys: (batch, keys)):
    before = traces["count"]
    for number in range(STEPS):
        state, metrics = jax.block_until_ready(step(state, *prepare(*inputs(number))))
    return (state, metrics), traces["count"] - before

def fresh(mesh):
    return training.replicate(jax.tree.map(jnp.copy, start), mesh)

record = {"devices": jax.device_count(), "traces": {}, "difference": {}}
single, record["traces"]["single"] = run(jax.jit(plain), start)
record["moved"] = difference(single[0].params, start.params)

def compare(name, result):
    (state, metrics), count = result
    record["difference"][name], record["traces"][name] = difference((state, metrics), single), count
    return state

mesh = training.data_mesh()
state = compare("jit", run(training.shard_step(plain, mesh), fresh(mesh), lambda *a: training.split(a, mesh)))
record["replicated"] = all(
    len(leaf.sharding.device_set) == 8 and leaf.is_fully_replicated for leaf in jax.tree.leaves(state)
)
one = training.data_mesh(jax.devices()[:1])
compare("jit_one_device", run(training.shard_step(plain, one), fresh(one), lambda *a: training.split(a, one)))
compare("pmap", run(training.pmap_step(named, "device"), start))

def by_parts(state, batch, keys):
    parts = jax.tree.map(lambda leaf: leaf.reshape(8, -1, *leaf.shape[1:]), (batch, keys))
    return jax.vmap(named, in_axes=(None, 0, 0), axis_name="device")(state, *parts)
def reduced(state, batch, keys):
    every = jax.jit(by_parts)(state, batch, keys)
    assert all(np.ptp(np.asarray(leaf, float), axis=0).max() == 0 for leaf in jax.tree.leaves(every))
    return jax.tree.map(lambda leaf: leaf[0], every)
compare("vmap_reduced", run(reduced, start))

for scan in (True, False):
    split_step = training.split_batch(plain, mesh)
    chunk = (training.make_train_chunk(split_step, training.draw_batch, BATCH, STEPS) if scan
             else training.make_drawn_step(split_step, training.draw_batch, BATCH))
    chunk = training.shard_chunk(chunk, mesh)
    state, before, (data, root) = fresh(mesh), traces["count"], training.replicate((dataset, key), mesh)
    for _ in range(1 if scan else STEPS):
        state, metrics = jax.block_until_ready(chunk(state, data, root))
    last = jax.tree.map(lambda leaf: leaf[-1], metrics) if scan else metrics
    compare("chunk" if scan else "drawn", ((state, last), traces["count"] - before))
text = chunk.lower(state, data, root).compile().as_text()
record["batch_is_split"] = f"f64[{BATCH // 8},5]" in text and "all-reduce" in text

seeds = jnp.arange(3)
states = jax.vmap(lambda seed: training.init_train_state(init(seed), optimizer))(seeds)
roots = jax.vmap(jax.random.key)(seeds)
def replica(state, root):
    return training.make_train_chunk(plain, training.draw_batch, BATCH, STEPS)(state, dataset, root)
together, _ = jax.jit(jax.vmap(replica))(states, roots)
alone = jax.jit(replica)
apart = [alone(jax.tree.map(lambda leaf: leaf[seed], states), roots[seed])[0] for seed in range(3)]
record["difference"]["vmap_seeds"] = difference(together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *apart))
record["seeds_differ"] = difference(apart[0].params, apart[1].params)
record["mesh_for"] = [training.data_mesh_for(size).size for size in (16, 12, 7, 9, 4)]

folder = sys.argv[1]
state, _ = run(training.shard_step(plain, mesh), fresh(mesh), lambda *a: training.split(a, mesh))[0]
training.save_checkpoint(folder, 4, state, "digest")
restored = {}
for count in (1, 2, 8):
    target = training.data_mesh(jax.devices()[:count])
    found = training.restore_latest(folder, fresh(target), "digest").tree
    same = all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state)))
    placed = {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(found)}
    after, _ = training.shard_step(plain, target)(found, *training.split(inputs(4), target))
    restored[str(count)] = [same, sorted(placed), int(after.step)]
record["restored"] = restored
print(json.dumps(record))
"""


@pytest.fixture(scope="module")
def devices_record(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"  # the latter compiles faster
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder / "checkpoints")],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    assert process.stderr == "", "the run should be silent"
    record = json.loads(process.stdout.splitlines()[-1])
    assert record["devices"] == 8 and record["moved"] > 1e-3
    return record


@pytest.mark.parametrize("name", ["jit", "jit_one_device", "pmap", "vmap_reduced", "chunk", "drawn", "vmap_seeds"])
def test_devices_agree_with_one(devices_record, name):
    assert devices_record["difference"][name] < 1e-12
    assert devices_record["seeds_differ"] > 1e-2


@pytest.mark.parametrize("name", ["single", "jit", "jit_one_device", "pmap", "vmap_reduced", "chunk", "drawn"])
def test_devices_trace_once(devices_record, name):
    assert devices_record["traces"][name] == 1


def test_devices_state_is_replicated_and_batch_is_split(devices_record):
    assert devices_record["replicated"]
    assert devices_record["batch_is_split"]


def test_devices_mesh_divides_the_batch(devices_record):
    assert devices_record["mesh_for"] == [8, 6, 7, 3, 4]


@pytest.mark.parametrize("count", [1, 2, 8])
def test_devices_restore_onto_another_number(devices_record, count):
    """A state written from eight devices comes back equal, lies where the template says, and trains on."""
    assert devices_record["restored"][str(count)] == [True, [count], 5]
