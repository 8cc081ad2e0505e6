"""What a model folder asks of the machine: `inferless-runtime-config.yaml` and `inferless.yaml` beside `app.py`.

In: the folder. Out: findings, one line each, about what is missing here. Inferless installs these things when it builds
a model; here nothing is installed and no command is run. Needs PyYAML, which web hosts lack.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from packaging.version import InvalidVersion, Version

from everstream.contract import python_packages

DEPLOYMENT_FILE = "inferless.yaml"
RUNTIME_FILE = "inferless-runtime-config.yaml"
MAX_BYTES = 64 << 10
TIMEOUT_S = 10
_DRIVERS_CUDA = re.compile(r"CUDA (?:UMD )?Version\s*:\s*(\d+\.\d+)")


class _BadFile(Exception):
    """The file or a part of it can't be used; the message says why."""


def check(app_dir: Path) -> list[str]:
    """Findings, one line each; an empty list if there is nothing to say, or neither file."""
    findings: list[str] = []
    runtime_file = RUNTIME_FILE
    with _errors_in(DEPLOYMENT_FILE, findings):
        deployment = _read(app_dir / DEPLOYMENT_FILE)
        findings.extend(f"{DEPLOYMENT_FILE}: {text}" for text in _deployment_findings(deployment))
        runtime_file = _runtime_file(app_dir, deployment)
    with _errors_in(runtime_file, findings):
        build = _section(_read(app_dir / runtime_file), "build")
        findings.extend(f"{runtime_file}: {text}" for text in _build_findings(build))
    return findings


@contextmanager
def _errors_in(file: str, findings: list[str]) -> Iterator[None]:
    try:
        yield
    except _BadFile as error:
        findings.append(f"{file}: {error}")


def _read(path: Path) -> dict[str, Any]:
    """A YAML file's mapping; empty if there is no file."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _BadFile(f"can't be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise _BadFile(f"has more than {MAX_BYTES} bytes")
    try:
        content = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _BadFile(f"is not valid YAML: {_one_line(str(error))}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise _BadFile(f"must be a mapping, not {type(content).__name__}")
    return content


def _section(content: dict[str, Any], name: str) -> dict[str, Any]:
    section = content.get(name)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise _BadFile(f"{name} must be a mapping, not {type(section).__name__}")
    return section


def _texts(section: dict[str, Any], name: str) -> list[str]:
    """A list of strings, each on one line. A single string counts as a list of one."""
    items = section.get(name) or []
    items = [items] if isinstance(items, str) else items
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise _BadFile(f"{name} must be a list of strings")
    return [_one_line(item) for item in items if item.strip()]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _runtime_file(app_dir: Path, deployment: dict[str, Any]) -> str:
    """The name of the other file, which this one may change."""
    name = _section(deployment, "optional").get("runtime_file_name") or RUNTIME_FILE
    if not isinstance(name, str) or Path(name).name != name:
        raise _BadFile("optional.runtime_file_name must be the name of a file in the same folder")
    if name != RUNTIME_FILE and not (app_dir / name).exists():
        raise _BadFile(f"optional.runtime_file_name is {name}, which does not exist")
    return name


def _deployment_findings(deployment: dict[str, Any]) -> Iterator[str]:
    unset = [str(name) for name in _section(deployment, "env") if str(name) not in os.environ]
    if unset:
        yield f"env sets variables that are not set here: {', '.join(unset)}"
    if _texts(deployment, "secrets"):
        yield "secrets are kept by Inferless; set the variables that they hold here"
    configuration = _section(deployment, "configuration")
    for kind in ("runtime", "volume"):
        name = configuration.get(f"custom_{kind}_name") or configuration.get(f"custom_{kind}_id")
        if name:
            yield f"the custom {kind} {_one_line(str(name))} is kept by Inferless, so it can't be checked here"


def _build_findings(build: dict[str, Any]) -> Iterator[str]:
    yield from python_packages.findings(_texts(build, "python_packages"))
    yield from _system_findings(_texts(build, "system_packages"))
    if (version := build.get("cuda_version")) is not None:
        yield from _cuda_findings(str(version))
    if commands := _texts(build, "run"):
        yield f"Inferless would run commands that are not run here: {'; '.join(commands)}"


def _system_findings(wanted: list[str]) -> Iterator[str]:
    if not wanted:
        return
    installed = _installed_debs()
    if installed is None:
        yield f"system packages can't be checked without dpkg-query: {', '.join(wanted)}"
    elif missing := [package for package in wanted if re.split("[=:/]", package)[0] not in installed]:
        yield f"system packages are missing: {shlex.join(['apt-get', 'install', *missing])}"


def _installed_debs() -> set[str] | None:
    """The names of all installed Debian packages, and of what they provide. None without dpkg."""
    output = _output("dpkg-query", "--show", "--showformat=${db:Status-Status}\t${Package}\t${Provides}\n")
    if output is None:
        return None
    rows = (line.split("\t") for line in output.splitlines())
    provided = (f"{package}, {provides}" for status, package, provides in rows if status == "installed")
    return {name.split()[0] for names in provided for name in names.split(",") if name.strip()}


def _cuda_findings(wanted: str) -> Iterator[str]:
    try:
        version = Version(wanted)
    except InvalidVersion:
        raise _BadFile(f"cuda_version must be a version like 12.4.1, not {wanted[:40]!r}") from None
    driver = _DRIVERS_CUDA.search(_output("nvidia-smi") or "")
    if driver is None:
        yield f"CUDA {wanted} is asked for, but nvidia-smi finds no GPU here"
    elif version.release[:2] > Version(driver[1]).release:
        yield f"CUDA {wanted} is asked for, but the NVIDIA driver supports only {driver[1]}: install a newer driver"


def _output(*command: str) -> str | None:
    """What a command prints; None if it is not there or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
