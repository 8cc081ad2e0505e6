"""The Lua scripts: every change of the log that must be atomic."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path


@cache
def load_script(name: str, flags: str = "") -> str:
    """The source of `lua/<name>.lua`, after the prelude that all scripts share."""
    return _joined(("prelude", name), flags)


@cache
def load_topic_script(name: str) -> str:
    """The same for the scripts of topics, which share some more."""
    return _joined(("prelude", "topics", f"topic_{name}"))


def _joined(parts: Sequence[str], flags: str = "") -> str:
    folder = Path(__file__).parent / "lua"
    shebang = [f"#!lua flags={flags}"] if flags else []
    return "\n".join(shebang + [(folder / f"{part}.lua").read_text() for part in parts])
