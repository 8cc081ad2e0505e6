"""For hatchling, which builds the wheel: its dependencies come from the requirements files, and it has the files that
operators and the model contract expect at a checkout's root. `settings.PROJECT_ROOT` finds them in both places.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

EXTRAS = {
    "web": "requirements-web.txt",
    "client": "requirements-python-client.txt",
    "cpu": "requirements-cpu.txt",
    "gpu": "requirements.txt",
}
PROJECT_FILES = ("app.py", "input_schema.py", "gunicorn.conf.py", "templates", "static", "examples/topics")


class Requirements(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        root = Path(self.root)
        metadata["dependencies"] = requirements(root, EXTRAS["web"])
        metadata["optional-dependencies"] = {extra: requirements(root, name) for extra, name in EXTRAS.items()}


class ProjectFiles(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # An editable install uses the checkout's own files.
        if version == "standard":
            build_data["force_include"] |= {name: f"everstream/_project/{name}" for name in PROJECT_FILES}


def requirements(root: Path, name: str) -> list[str]:
    """The requirements in a file, and in the files that it includes."""
    found = []
    for line in (root / name).read_text().splitlines():
        if line.startswith("-r "):
            found += requirements(root, line.removeprefix("-r ").strip())
        elif line and not line.startswith(("#", "-")):
            found.append(line)
    return found
