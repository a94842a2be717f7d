"""The distillation job: a published model in, a model of few evaluations out."""

import os
from collections.abc import Callable
from typing import Any

from models.score import ScoreModel
from models.store import ZOO, ModelStore
from models.training import presets
from models.training.averages import asked
from models.training.data.images import Labels, TrainingData
from models.training.distillation.flows import Flows, FlowsStopped, Maker
from models.training.distillation.teacher import student_of
from models.training.job import Job, Task, TrainingStopped
from models.training.origin import Origin, as_begun, find, read_weights
from models.training.settings import TrainingSettings

TOLD_EVERY = 20  # times in the making of the flows


class DistillationJob(Job):
    """One run of `scoreserve distill`: the teacher makes flows, then its network learns where they end.

    Consistency distillation (Song 2023), but that the student is not told by itself, a step nearer to the end, where a
    flow ends: the teacher has gone all the way (Luhman & Luhman 2021), and each of its noise levels is learned from.

    Args:
        model: the teacher, `NAME` or `NAME/VERSION`, of `store` or of those that ship.
        name: of the model that is published.
        flows: settings that replace those of the flows.
    """

    model: str
    name: str
    flows: dict[str, Any]

    def task(self, stopping: Callable[[], bool], say: Callable[[str], None]) -> Task:
        """See Job."""
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError("a distillation is one process: start it without torchrun")
        store, preset = ModelStore(self.store, ZOO), presets.distillation()
        card = find(as_begun(self.model, self.out), store)
        spec, told = student_of(card), {"classes": card.classes is not None}
        settings = TrainingSettings.model_validate(preset.training.model_dump() | told | self.overrides)
        asked(self.average, settings.ema_decay)  # which is better known now than when it is published
        how = preset.flows.model_validate(preset.flows.model_dump() | self.flows)
        published = presets.PublishedAs(
            name=self.name,
            description=f"{card.description} {card.name} version {card.version}, {preset.description}".strip(),
            sigma_min=card.sigma_min,
            sigma_max=card.sigma_max,
            sampler=preset.sampler,
            draws_labels=card.draws_labels,
        )
        teacher = ScoreModel.load(store, card, self.device)
        with self.alone():
            flows = self._flows(Maker(teacher, card, how, settings.label_dropout, self.out / "flows"), stopping, say)
        labels = Labels(flows.labels, card.classes) if flows.labels is not None and card.classes else None
        data = TrainingData(flows.ends, labels, f"{how.count:,} flows of {card.name} version {card.version}")
        start = Origin.of(card), read_weights(card, store)
        return Task(self.trainer(data, settings, start, (spec, flows)), published, data.told)

    @staticmethod
    def _flows(maker: Maker, stopping: Callable[[], bool], say: Callable[[str], None]) -> Flows:
        """All flows; says now and then how many there are."""
        count, told = maker.settings.count, 0

        def on_made(made: int) -> None:
            nonlocal told
            if made * TOLD_EVERY // count > told:
                told = made * TOLD_EVERY // count
                say(f"{made:,} of {count:,} flows")

        try:
            return maker.make(on_made, stopping)
        except FlowsStopped as stopped:
            raise TrainingStopped(str(stopped)) from stopped
