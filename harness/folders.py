"""Models without a folder: instances of any class, as the engine's adapter for them."""

from pathlib import Path

from everstream.contract.loader import Declaration, Folder, ModelSchema
from everstream.contract.model import LoadedModel


def adapted(model, declaration=None):
    return LoadedModel(model, Folder(Path(), type(model), ModelSchema({}), declaration or Declaration(), None))
