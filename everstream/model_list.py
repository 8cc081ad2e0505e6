"""The setting MODELS, and the settings of one model: `X__NAME` sets X for that model's engine. Pure.

NAME in `X__NAME` is a model's name in upper case, with an underscore for everything but letters and digits. Used by
`settings`.
"""

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

MAX_MODELS = 32
MODEL_VARIABLE = "EVERSTREAM_ENGINE_MODEL"
"""Tells an engine process which of several models it runs."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_OF_ONE_MODEL = re.compile(r"(EVERSTREAM_\w*?|ENGINE_ARGS|MODEL|CUDA_VISIBLE_DEVICES)__(\w+)", re.ASCII)
"""Names that nothing but this service would set, so an unknown model in one is a mistake."""


class ModelFolder(NamedTuple):
    """`queue` names the queue of its requests: empty if only one model is served, else the model's name."""

    name: str
    path: Path
    queue: str


def parse(text: str) -> dict[str, str]:
    """Folders by name, as written. Raises ValueError."""
    folders: dict[str, str] = {}
    for entry in shlex.split(text):
        name, _, folder = entry.partition("=")
        if not folder or not _NAME.fullmatch(name):
            raise ValueError(
                f"{entry[:100]!r} is not NAME=FOLDER; a NAME has 1 to 64 of A-Z a-z 0-9 . _ - and begins with a "
                f"letter or a digit"
            )
        if name in folders:
            raise ValueError(f"two models are called {name}")
        folders[name] = folder
    if not 1 <= len(folders) <= MAX_MODELS:
        raise ValueError(f"expected 1 to {MAX_MODELS} of NAME=FOLDER, got {len(folders)}")
    names: dict[str, str] = {}
    for name in folders:
        if (other := names.setdefault(suffix(name), name)) != name:
            raise ValueError(f"settings that end in __{suffix(name)} would be those of both {other} and {name}")
    return folders


def render(folders: Mapping[str, str]) -> str:
    """The inverse of `parse`."""
    return shlex.join(f"{name}={folder}" for name, folder in folders.items())


def suffix(name: str) -> str:
    """NAME in `X__NAME`."""
    return re.sub("[^A-Z0-9]", "_", name.upper(), flags=re.ASCII)


def split(variable: str, names: Iterable[str]) -> tuple[str, str] | None:
    """The setting and the model of `X__NAME`; None: it is a variable like any other."""
    found = [name for name in names if variable.endswith(f"__{suffix(name)}")]
    if not found:
        return None
    # A model's name may end in another's.
    name = max(found, key=len)
    base = variable.removesuffix(f"__{suffix(name)}")
    return (base, name) if base else None


def check_variable(variable: str, names: Iterable[str]) -> None:
    """Raises ValueError if it is a setting of a model that is not served."""
    match = _OF_ONE_MODEL.fullmatch(variable)
    if match is None or split(variable, names):
        return
    base, given = match.groups()
    suffixes = [suffix(name) for name in names]
    if not suffixes:
        raise ValueError(f"MODELS is not set, so there is no model {given}; set {base} instead")
    closest = difflib.get_close_matches(given, suffixes, n=1)
    hint = f"did you mean {base}__{closest[0]}? " if closest else ""
    raise ValueError(f"no model has this suffix; {hint}the suffixes are {', '.join(suffixes)}")


def engine_environ(environ: Mapping[str, str], names: Iterable[str], name: str) -> dict[str, str]:
    """The environment of one model's engine, in which `X__NAME` has become X."""
    names, own = list(names), dict(environ)
    for variable, value in environ.items():
        found = split(variable, names)
        if found and found[1] == name:
            own[found[0]] = value
    return own | {MODEL_VARIABLE: name}
