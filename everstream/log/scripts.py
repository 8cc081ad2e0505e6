"""The Lua scripts: every change of the log that must be atomic."""

from functools import cache
from pathlib import Path


@cache
def load_script(name: str, flags: str = "") -> str:
    """The source of `lua/<name>.lua`, after the prelude that all scripts share."""
    folder = Path(__file__).parent / "lua"
    shebang = [f"#!lua flags={flags}"] if flags else []
    return "\n".join(shebang + [(folder / f"{part}.lua").read_text() for part in ("prelude", name)])
