"""Checks this machine and these settings for problems: `everstream doctor`.

In: settings, the machine. Out: one line per finding, with advice if something is wrong. Reads only: it starts no part
of Everstream. Of a model folder it loads `input_schema.py`, as web workers do, and only reads `app.py`.
"""

import ast
import http.client
import importlib.metadata
import os
import re
import resource
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import valkey

from everstream import tracing
from everstream.contract.loader import APP, CLASS_NAME, SCHEMA_FILE, load_schema
from everstream.errors import ModelLoadError
from everstream.host import valkey_server
from everstream.llm import demo_model
from everstream.model_list import ModelFolder
from everstream.settings import PROJECT_ROOT, Settings, SettingsError, engine_environ, load_settings
from everstream.web.limits import BACKLOG, open_files
from everstream.web.ports import check_ports

MIN_REDIS = 7
MIN_DRIVER = 580
"""NVIDIA's first driver for CUDA 13, which the pinned torch is built for."""
MIN_FREE_BYTES = 4 << 30
TIMEOUT_S = 5
_CONFIG = ("appendonly", "appendfsync", "maxmemory-policy")


class Finding(NamedTuple):
    """`level`: ok, note (works, but know this), fail (won't work). `advice`: what to do."""

    level: str
    what: str
    advice: str = ""


def main(settings: Settings) -> int:
    """Print the findings. Returns the exit status: 1 if something will not work."""
    failed = False
    for check in CHECKS:
        for finding in check(settings):
            failed |= finding.level == "fail"
            advice = f". {finding.advice}" if finding.advice else ""
            sys.stdout.write(f"{finding.level:<4} | {finding.what.rstrip('.')}{advice}\n")
    return int(failed)


def _address(settings: Settings) -> Iterator[Finding]:
    try:
        with urllib.request.urlopen(f"{settings.url}/healthz", timeout=TIMEOUT_S):  # noqa: S310
            yield Finding("ok", f"Everstream answers at {settings.url}")
    except (OSError, ValueError, http.client.HTTPException):
        try:
            check_ports(settings)
            yield Finding("ok", f"{settings.address} is free to listen on")
        except SettingsError as error:
            yield Finding("fail", str(error))


def _access(settings: Settings) -> Iterator[Finding]:
    if settings.access == "open":
        yield Finding("note", "EVERSTREAM_ACCESS=open: everyone who can reach the service may use it")
    elif settings.access == "keys" or settings.is_exposed:
        yield Finding("ok", "everyone needs an API key, or a token of the identity provider")
    else:
        yield Finding("ok", "this machine alone, without keys until the first one is made")


def _models(settings: Settings) -> Iterator[Finding]:
    for model in settings.served:
        own = load_settings(engine_environ(os.environ, model)) if model.queue else settings
        for finding in _model(own, model):
            yield finding._replace(what=f"{model.queue}: {finding.what}") if model.queue else finding


def _model(settings: Settings, model: ModelFolder) -> Iterator[Finding]:
    folder = model.path
    try:
        # A request class in `app.py` may declare the inputs instead.
        if (folder / SCHEMA_FILE).is_file() or not (folder / APP).is_file():
            load_schema(folder, isolated=bool(model.queue))
        tree = ast.parse((folder / APP).read_text())
    except (ModelLoadError, OSError, SyntaxError) as error:
        advice = "Set MODELS" if model.queue else "Set EVERSTREAM_APP_DIR"
        yield Finding("fail", f"the model folder can't be used: {error}", advice)
        return
    if CLASS_NAME not in _names(tree):
        yield Finding("note", f"{folder / APP} does not seem to define {CLASS_NAME}", "Make sure that it does")
    yield Finding("ok", f"the model folder is {folder}")
    if settings.serves_chat_model:
        yield _weights(settings)


def _names(tree: ast.Module) -> set[str]:
    """What a module's top level defines or imports."""
    named = {node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    named |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return named | {alias.asname or alias.name for node in imports for alias in node.names}


def _weights(settings: Settings) -> Finding:
    if demo_model.is_wanted(settings):
        is_built = demo_model.folder(settings).is_dir()
        return Finding("ok", "the demo model is built" if is_built else "the demo model will be downloaded (93 MB)")
    if not settings.model_is_folder:
        return Finding("ok", f"{settings.model} is a Hugging Face id: vLLM downloads it unless it is cached")
    if (Path(settings.model) / "config.json").is_file():
        return Finding("ok", f"the model's weights are in {settings.model}")
    return Finding("fail", f"{settings.model} has no config.json", "Set MODEL to a model's folder or Hugging Face id")


def _valkey(settings: Settings) -> Iterator[Finding]:
    if not settings.valkey_url:
        yield from _embedded_valkey(settings)
        return
    timeouts = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
    try:
        client = valkey.Valkey.from_url(settings.valkey_url, decode_responses=True, **timeouts)
        version = str(cast(dict[str, Any], client.info("server")).get("redis_version", "0"))
    except (valkey.exceptions.ValkeyError, ValueError) as error:
        advice = "Check VALKEY_URL and EVERSTREAM_VALKEY_PASSWORD_FILE"
        yield Finding("fail", f"Valkey at {settings.safe_log_url} can't be used: {error}", advice)
        return
    what = f"Valkey at {settings.safe_log_url} is compatible with Redis {version}"
    if int(version.partition(".")[0]) < MIN_REDIS:
        yield Finding("fail", what, f"Everstream needs Valkey, or Redis {MIN_REDIS} or newer")
        return
    yield Finding("ok", what)
    try:
        config = {name: cast(dict[str, str], client.config_get(name)).get(name, "") for name in _CONFIG}
    except valkey.exceptions.ValkeyError:
        advice = "Make sure that it has appendonly yes and maxmemory-policy noeviction"
        yield Finding("note", "its configuration can't be read", advice)
        return
    yield from _persistence(config)


def _persistence(config: dict[str, str]) -> Iterator[Finding]:
    if config.get("appendonly") != "yes":
        yield Finding("note", "Valkey keeps no append-only file: a restart loses generations", "Set appendonly yes")
    elif config.get("appendfsync") != "always":
        advice = "Set appendfsync always if that is not acceptable"
        yield Finding("note", f"appendfsync {config.get('appendfsync')}: power loss may take the last second", advice)
    else:
        yield Finding("ok", "Valkey writes each append to its disk")
    if (policy := config.get("maxmemory-policy")) != "noeviction":
        yield Finding("fail", f"maxmemory-policy {policy} may drop entries", "Set maxmemory-policy noeviction")


def _embedded_valkey(settings: Settings) -> Iterator[Finding]:
    try:
        valkey_server.command(settings)
    except (SettingsError, OSError) as error:
        yield Finding("fail", str(error))
        return
    folder = settings.state_path
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    if not os.access(existing, os.W_OK):
        yield Finding("fail", f"{existing} can't be written to", "Set EVERSTREAM_STATE_DIR")
        return
    free = shutil.disk_usage(existing).free
    advice = "" if free > MIN_FREE_BYTES else "Make room: a full disk stops all generations until there is some"
    yield Finding("note" if advice else "ok", f"the log is in {folder}, with {free >> 30} GiB free", advice)
    overcommit = _read("/proc/sys/vm/overcommit_memory")
    if overcommit not in ("", "1"):
        advice = "Set vm.overcommit_memory=1 (sysctl), or a rewrite of the append-only file may fail for lack of memory"
        yield Finding("note", f"vm.overcommit_memory is {overcommit}", advice)


def _gpu(settings: Settings) -> Iterator[Finding]:
    if all(model.path != PROJECT_ROOT for model in settings.served):
        return
    build = _version("torch")
    if not build:
        yield Finding("note", "torch is not installed, so only web workers can run here", "Set VALKEY_URL for them")
        return
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        found = ""
    if not found:
        yield Finding("ok", f"no NVIDIA GPU answers (nvidia-smi): vLLM runs on the CPU, with torch {build}")
        return
    for gpu in found.splitlines():
        yield from gpu_findings(gpu, build)


def gpu_findings(gpu: str, build: str) -> Iterator[Finding]:
    name, driver, memory = (part.strip() for part in gpu.split(","))
    if build.endswith("+cpu"):
        yield Finding("fail", f"there is a {name}, but torch {build} can't use it", "Install requirements.txt anew")
    elif (major := driver.partition(".")[0]).isdecimal() and int(major) < MIN_DRIVER:
        yield Finding("fail", f"{name}: driver {driver} is too old for torch {build}", f"Install {MIN_DRIVER} or newer")
    else:
        yield Finding("ok", f"{name}, {memory}, driver {driver}, torch {build}")


def _limits(settings: Settings) -> Iterator[Finding]:
    needed, (_, hard) = open_files(settings), resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        advice = "Raise the limit (ulimit -n), or lower EVERSTREAM_MAX_STREAMS"
        yield Finding("fail", f"a web worker needs {needed} open files; only {hard} are allowed", advice)
    else:
        yield Finding("ok", f"a web worker may open the {needed} files that it needs")
    backlog = _read("/proc/sys/net/core/somaxconn")
    if backlog.isdecimal() and int(backlog) < BACKLOG:
        advice = f"Set net.core.somaxconn={BACKLOG} (sysctl) if more clients than that may reconnect when a worker dies"
        yield Finding("note", f"the kernel queues at most {backlog} new connections", advice)


def _traces(settings: Settings) -> Iterator[Finding]:  # noqa: ARG001 - as the others
    try:
        tracing.check(os.environ)
    except SettingsError as error:
        yield Finding("fail", str(error))
    else:
        if tracing.are_on(os.environ):
            yield Finding("ok", "OTEL_* variables turn traces on")


def _nginx(settings: Settings) -> Iterator[Finding]:
    executable = shutil.which("nginx")
    if executable is None:
        return
    try:
        command = [executable, "-T"]
        dumped = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        yield Finding("note", "nginx is installed, but `nginx -T` fails", "Run this as root to check its configuration")
        return
    if re.search(rf":{settings.port}\b", dumped):
        yield from nginx_findings(dumped, settings)
    else:
        yield Finding("ok", f"nginx is installed; its configuration does not name port {settings.port}")


def nginx_findings(config: str, settings: Settings) -> Iterator[Finding]:
    """Of the whole configuration: it may hold other sites, too, so a timeout is only worth a note."""
    if re.search(r"^\s*proxy_ignore_headers\b[^;]*X-Accel-Buffering", config, re.MULTILINE | re.IGNORECASE):
        yield Finding("fail", "nginx ignores X-Accel-Buffering, so it may hold events back", "Remove that line")
    if re.search(r"^\s*gzip_types\b[^;]*text/event-stream", config, re.MULTILINE):
        yield Finding("fail", "nginx compresses text/event-stream, so it holds events back", "Remove that type")
    for amount, unit in re.findall(r"^\s*proxy_read_timeout\s+(\d+)(ms|s|m|h)?\s*;", config, re.MULTILINE):
        seconds = int(amount) * {"ms": 0.001, "m": 60, "h": 3600}.get(unit, 1)
        if seconds < 2 * settings.heartbeat_s:
            advice = f"For Everstream set it to {2 * settings.heartbeat_s:g}s or more, or lower EVERSTREAM_HEARTBEAT_S"
            yield Finding("note", f"nginx has a proxy_read_timeout of {seconds:g} s", advice)


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    _address,
    _access,
    _models,
    _valkey,
    _gpu,
    _limits,
    _traces,
    _nginx,
)
