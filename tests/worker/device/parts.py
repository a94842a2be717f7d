"""What tests of a batch ask of it: shards of the tiny model."""

from models.card import ModelCard
from models.images import Pixels
from models.plan import plan
from models.samplers.heun import Heun
from models.samplers.settings import SamplerSettings
from worker.device.batch import Batch
from worker.device.lane import Part
from worker.queue.requests import SampleRequest

SHORT = Heun(name="heun", levels=4)


def request(card: ModelCard, count: int, seed: int = 1, sampler: SamplerSettings = SHORT) -> SampleRequest:
    return SampleRequest(model="tiny", version=1, count=count, seed=seed, sampler=plan(sampler, card)[0])


def run(batch: Batch) -> dict[Part, Pixels]:
    done: dict[Part, Pixels] = {}
    while batch.parts:
        done |= {part: part.pixels() for part in batch.step()}
    return done
