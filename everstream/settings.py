"""Settings: read once from the environment into one frozen, typed object, by every process on its own.

Four names are short, as people type them (`PORT`, `MODEL`, `ENGINE_ARGS`, `VALKEY_URL`), one is gunicorn's own
(`WEB_CONCURRENCY`), the rest begin with `EVERSTREAM_`. An unknown `EVERSTREAM_*` name is an error that suggests the
near one: a misspelt setting must not be a silent default.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

PREFIX = "EVERSTREAM_"
PLAIN_NAMES = {
    "port": "PORT",
    "model": "MODEL",
    "engine_args": "ENGINE_ARGS",
    "valkey_url": "VALKEY_URL",
    "workers": "WEB_CONCURRENCY",
}
DEMO_MODEL = "smollm2-135m-instruct"
MAX_FLUSH_MS = 1000
MAX_HEARTBEAT_S = 30
_REASONS = {
    "heartbeat_s": "the shipped nginx and most other proxies cut what is silent for 60 s, and one heartbeat may be late"
}
"""Why a limit is where it is, for those that surprise."""
REPO_ROOT = Path(__file__).resolve().parent.parent


class SettingsError(Exception):
    """A setting that can't be used; the message names the variable and what is allowed."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings; README.md has the same table for people. Times are seconds unless the name says otherwise."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535)] = 8000
    health_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    workers: Annotated[int, Meta(ge=1, le=256)] = 2
    model: str = DEMO_MODEL
    engine_args: str = ""
    valkey_url: str = ""

    app_dir: str = str(REPO_ROOT)
    state_dir: str = ""
    cache_dir: str = ""
    namespace: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = "everstream"
    engine_name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""

    max_running: Annotated[int, Meta(ge=1, le=4096)] = 128
    max_queued: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    max_prompt_chars: Annotated[int, Meta(ge=1, le=1_048_576)] = 200_000
    max_output_bytes: Annotated[int, Meta(ge=1024, le=67_108_864)] = 1 << 20
    max_generation_bytes: Annotated[int, Meta(ge=1024, le=1 << 30)] = 64 << 20
    max_log_bytes: Annotated[int, Meta(ge=65536)] = 1 << 30
    max_streams: Annotated[int, Meta(ge=1, le=60_000)] = 4000
    proxies: Annotated[int, Meta(ge=0, le=10)] = 0
    lease_s: Annotated[float, Meta(ge=0.5, le=600)] = 10.0
    heartbeat_s: Annotated[float, Meta(ge=0.2, le=MAX_HEARTBEAT_S)] = 15.0
    retention_s: Annotated[int, Meta(ge=1, le=604_800)] = 600
    abandon_after_s: Annotated[float, Meta(ge=1, le=604_800)] = 60.0
    send_timeout_s: Annotated[float, Meta(ge=0.5, le=3600)] = 30.0
    body_timeout_s: Annotated[float, Meta(ge=0.5, le=600)] = 20.0
    retry_ms: Annotated[int, Meta(ge=10, le=600_000)] = 1000
    flush_ms: Annotated[int, Meta(ge=0, le=MAX_FLUSH_MS)] = 0
    reader_queue_bytes: Annotated[int, Meta(ge=1024, le=67_108_864)] = 256 << 10
    fsync: Annotated[str, Meta(pattern="^(always|everysec)$")] = "always"
    log_level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$")] = "info"

    @property
    def state_path(self) -> Path:
        """Where the embedded Valkey keeps its data: `EVERSTREAM_STATE_DIR`, else the user's state directory."""
        return Path(self.state_dir) if self.state_dir else _xdg("XDG_STATE_HOME", ".local/state")

    @property
    def cache_path(self) -> Path:
        """Where the demo model is kept: `EVERSTREAM_CACHE_DIR`, else the user's cache directory."""
        return Path(self.cache_dir) if self.cache_dir else _xdg("XDG_CACHE_HOME", ".cache")

    @property
    def address(self) -> str:
        """Host and port as they stand in a URL."""
        return self.address_of(self.port)

    def address_of(self, port: int) -> str:
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it: "any address" is none that it can open."""
        loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
        host = loopback.get(self.host, self.host)
        return f"http://{msgspec.structs.replace(self, host=host).address}"

    @property
    def valkey_socket(self) -> Path:
        return self.state_path / "valkey.sock"

    @property
    def log_url(self) -> str:
        """The Valkey to talk to: the outside one, or the embedded server's Unix socket."""
        return self.valkey_url or f"unix://{self.valkey_socket}"

    @property
    def safe_log_url(self) -> str:
        """`log_url` for messages: without the user and password that it may hold."""
        parts = urlsplit(self.log_url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()

    @property
    def serves_chat_model(self) -> bool:
        """Whether the model folder is this repository, whose chat model runs what MODEL names."""
        return Path(self.app_dir).resolve() == REPO_ROOT

    @property
    def model_name(self) -> str:
        """What clients are told: the last part of a folder's path, a hub id as it stands."""
        is_folder = self.model.startswith(("/", "./", "../", "~"))
        return Path(self.model).name if is_folder else self.model


def _xdg(variable: str, under_home: str) -> Path:
    base = os.environ.get(variable)
    return (Path(base) if base else Path.home() / under_home) / "everstream"


def variable_of(field: str) -> str:
    """The environment variable that sets a field."""
    return PLAIN_NAMES.get(field, PREFIX + field.upper())


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings; an empty value counts as not set. Raises SettingsError."""
    env = os.environ if environ is None else environ
    fields = {variable_of(name): name for name in Settings.__struct_fields__}
    for name in env:
        if name.startswith(PREFIX) and name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SettingsError(f"unknown setting {name}{hint}")
    given = {field: env[name] for name, field in fields.items() if env.get(name, "") != ""}
    try:
        settings = msgspec.convert(given, Settings, strict=False)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$.")
        field = path.rstrip("`")
        name, why = variable_of(field), f" ({_REASONS[field]})" if field in _REASONS else ""
        raise SettingsError(f"{name}={env.get(name)!r}: {reason[:1].lower()}{reason[1:]}{why}") from None
    if settings.health_port == settings.port:
        raise SettingsError(f"{variable_of('health_port')}={settings.port}: is PORT already; it must be another")
    return settings
