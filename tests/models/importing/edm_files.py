"""Files that are written as EDM writes them, of other content."""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from models.card import ModelCard
from models.importing.edm import import_edm
from models.importing.edm_pickle import Container, Module
from models.importing.publishing import Target
from models.score import ScoreModel
from models.store import ModelStore

Change = Callable[[dict[str, Any]], None]


class Writer(pickle.Pickler):
    """Pickles what Reader read as it was, with a source text."""

    source = ""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Module):
            described = {"type": "class", "version": 6, "module_src": self.source, "class_name": value.kind}
            rebuild = sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj  # type: ignore[attr-defined]
            return rebuild, ({**described, "state": value.state},)
        return NotImplemented


def restore(module: Module, made: dict[int, nn.Module]) -> None:
    """Makes torch's containers of those inside that stand for them; `made` are those that there are."""
    modules = module.state.get("_modules", {})
    for name, inner in modules.items():
        if isinstance(inner, Module) and id(inner) not in made:
            made[id(inner)] = nn.ModuleDict.__new__(nn.ModuleDict)
            restore(inner, made)
            made[id(inner)].__dict__.update(inner.state)
        if isinstance(inner, Container):
            modules[name] = made[id(inner)]


def imported(path: Path, tmp_path: Path) -> tuple[ModelCard, ScoreModel]:
    store = ModelStore(tmp_path / "store")
    card, _ = import_edm(path, Target(store, "model"))
    return card, ScoreModel.load(store, card)
