"""Floor 1: training. State and optimiser, steps and chunks, devices, checkpoints; metrics of forecasts."""

from phdme_jax.training.checkpoint import Checkpoint as Checkpoint
from phdme_jax.training.checkpoint import latest_checkpoint as latest_checkpoint
from phdme_jax.training.checkpoint import restore_latest as restore_latest
from phdme_jax.training.checkpoint import save_checkpoint as save_checkpoint
from phdme_jax.training.sharding import data_mesh as data_mesh
from phdme_jax.training.sharding import data_mesh_for as data_mesh_for
from phdme_jax.training.sharding import pmap_step as pmap_step
from phdme_jax.training.sharding import replicate as replicate
from phdme_jax.training.sharding import shard_chunk as shard_chunk
from phdme_jax.training.sharding import shard_step as shard_step
from phdme_jax.training.sharding import split as split
from phdme_jax.training.sharding import split_batch as split_batch
from phdme_jax.training.state import TrainState as TrainState
from phdme_jax.training.state import init_train_state as init_train_state
from phdme_jax.training.state import learning_rate_schedule as learning_rate_schedule
from phdme_jax.training.state import make_optimizer as make_optimizer
from phdme_jax.training.state import update_average as update_average
from phdme_jax.training.step import MixedData as MixedData
from phdme_jax.training.step import conflict_free as conflict_free
from phdme_jax.training.step import draw_batch as draw_batch
from phdme_jax.training.step import example_keys as example_keys
from phdme_jax.training.step import make_drawn_step as make_drawn_step
from phdme_jax.training.step import make_mixed_draw as make_mixed_draw
from phdme_jax.training.step import make_train_chunk as make_train_chunk
from phdme_jax.training.step import make_train_step as make_train_step
from phdme_jax.training.step import step_inputs as step_inputs
