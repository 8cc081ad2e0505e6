"""Installs requirements files and Everstream itself: `.venv/bin/python tools/install.py [--title T] REQUIREMENTS...`.

Run by `make` with the Python of the target environment. pip installs uv, and uv installs the rest, at the versions and
hashes that `make lock` recorded, or at those in another file (`--constraints`). Standard library only, because nothing
is installed yet.

The default package index lacks the CPU build of PyTorch. If pip is configured with an index that has it (a company's
mirror), it comes from there, otherwise from the PyTorch project's own index, which uv knows.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from everstream import uv  # noqa: E402
from everstream.host.terminal import moving  # noqa: E402

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]


def install(requirements: list[Path], constraints: Path) -> None:
    """A file next to a requirements file, with the suffix `.excludes`, lists packages not to install for it."""
    _run([*PIP, "-r", str(ROOT / "requirements-uv.txt")])
    environ = uv.environment()
    install = [uv.executable(), "pip", "install", "--python", sys.executable, "-c", str(constraints)]
    options = [option for file in requirements for option in ("--requirements", str(file))]
    excludes = [file.with_suffix(".excludes") for file in requirements]
    options += [option for file in excludes if file.exists() for option in ("--excludes", str(file))]
    torch = next((line for file in requirements for line in file.read_text().splitlines() if _is_cpu_torch(line)), None)
    if torch and not _is_found(torch, install, environ):
        options += ["--torch-backend", "cpu"]
    _run([*install, *options], environ)
    _run([*install, "--no-deps", "--editable", str(ROOT)], environ)


def _is_cpu_torch(line: str) -> bool:
    return line.startswith("torch==") and line.endswith("+cpu")


def _is_found(requirement: str, install: list[str], environ: Mapping[str, str]) -> bool:
    """Whether one of the indexes that pip is configured with has it."""
    probe = [*install, "--dry-run", "--no-deps", requirement]
    return subprocess.run(probe, env=environ, capture_output=True, check=False).returncode == 0


def _run(command: list[str], environ: Mapping[str, str] | None = None) -> None:
    """Hide the output, as uv's package list is two screens long; show it on failure."""
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        sys.exit(f"{done.stdout.decode(errors='replace')}everstream | command failed: {' '.join(command)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--title", default="what Everstream needs")
    parser.add_argument("--constraints", type=Path, default=ROOT / "hashes.txt")
    parser.add_argument("requirements", nargs="+", type=Path)
    args = parser.parse_args()
    try:
        with moving(f"installing {args.title}"):
            install(args.requirements, args.constraints)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
