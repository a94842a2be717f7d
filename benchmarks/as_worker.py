"""The engine as a worker of ours has it, with the network run as was found to be fastest: for peers."""

from models.card import ModelCard
from models.files import cache_dir
from models.sampling.choice import Remembered
from models.sampling.engine import Engine
from models.score import ScoreModel
from models.store import ModelStore
from worker.device.lane import Lane


def engine_of(store: ModelStore, card: ModelCard, slots: int) -> Engine:
    """Of one thread, as the worker of the benchmark."""
    remembered = Remembered(cache_dir() / "executions.json")
    lane = Lane(card, ScoreModel.load(store, card), slots, remembered=remembered)
    lane.measure()  # which says how many rows a step has
    return lane.engine
