"""Settings: each process reads them once from the environment into one frozen, typed object.

Four names are short, as people type them (`PORT`, `MODEL`, `ENGINE_ARGS`, `VALKEY_URL`), one is gunicorn's own
(`WEB_CONCURRENCY`), and the rest begin with `EVERSTREAM_`. An unknown `EVERSTREAM_*` name is an error that suggests the
closest one: a misspelt setting must not silently become the default.
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
    "valkey_url": "for example redis://host:6379/0, rediss://user:password@host, unix:///run/valkey.sock",
    "heartbeat_s": "the shipped nginx and most other proxies cut 60 s of silence, and one heartbeat may be late",
}
"""Reasons for the limits that may surprise."""
_PACKAGE = Path(__file__).resolve().parent
PROJECT_ROOT = _PACKAGE / "_project" if (_PACKAGE / "_project").is_dir() else _PACKAGE.parent
"""The folder of `app.py`, `gunicorn.conf.py`, `templates/` etc.: the checkout, or a copy of those files in a wheel."""


class SettingsError(Exception):
    """A setting is invalid; the message names the variable and what is allowed."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings; docs/settings.md has the same table. Times are in seconds unless the name says otherwise."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535)] = 8000
    health_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    workers: Annotated[int, Meta(ge=1, le=256)] = 2
    model: str = DEMO_MODEL
    engine_args: str = ""
    valkey_url: Annotated[str, Meta(pattern=r"^$|^(rediss?|valkeys?|unix)://.")] = ""

    app_dir: str = str(PROJECT_ROOT)
    state_dir: str = ""
    cache_dir: str = ""
    namespace: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = "everstream"
    engine_name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""

    max_running: Annotated[int, Meta(ge=1, le=4096)] = 128
    max_queued: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    max_prompt_chars: Annotated[int, Meta(ge=1, le=1_048_576)] = 200_000
    max_body_bytes: Annotated[int, Meta(ge=1024, le=64 << 20)] = 4 << 20
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
        """Where the embedded Valkey keeps its data: `EVERSTREAM_STATE_DIR`, or the user's state directory."""
        return Path(self.state_dir) if self.state_dir else _xdg("XDG_STATE_HOME", ".local/state")

    @property
    def app_path(self) -> Path:
        """The model folder."""
        return Path(self.app_dir).resolve()

    @property
    def cache_path(self) -> Path:
        """Where the demo model is kept: `EVERSTREAM_CACHE_DIR`, or the user's cache directory."""
        return Path(self.cache_dir) if self.cache_dir else _xdg("XDG_CACHE_HOME", ".cache")

    @property
    def address(self) -> str:
        """Host and port, as written in a URL."""
        return self.address_of(self.port)

    def address_of(self, port: int) -> str:
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"

    @property
    def url(self) -> str:
        """The URL for a browser on this machine, which can't open a wildcard address."""
        loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
        host = loopback.get(self.host, self.host)
        return f"http://{msgspec.structs.replace(self, host=host).address}"

    @property
    def valkey_socket(self) -> Path:
        return self.state_path / "valkey.sock"

    @property
    def log_url(self) -> str:
        """The Valkey to connect to: the external one, or the embedded server's Unix socket."""
        return self.valkey_url or f"unix://{self.valkey_socket}"

    @property
    def safe_log_url(self) -> str:
        """`log_url` for messages, without any user name and password."""
        parts = urlsplit(self.log_url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()

    @property
    def serves_chat_model(self) -> bool:
        """Whether the model folder is this repository, whose chat model runs the model named by MODEL."""
        return self.app_path == PROJECT_ROOT

    def path_variables(self) -> dict[str, str]:
        """The variables that hold paths, which are absolute here: for a process with another working directory."""
        fields = [field for field in ("app_dir", "state_dir", "cache_dir") if getattr(self, field)]
        fields += ["model"] if _is_folder(self.model) else []
        return {variable_of(field): getattr(self, field) for field in fields}

    @property
    def model_name(self) -> str:
        """The name that clients see: the last part of a folder's path, or a hub id unchanged."""
        return Path(self.model).name if _is_folder(self.model) else self.model


def _is_folder(model: str) -> bool:
    return model.startswith(("/", "./", "../", "~"))


def _xdg(variable: str, under_home: str) -> Path:
    base = os.environ.get(variable)
    return (Path(base) if base else Path.home() / under_home) / "everstream"


def variable_of(field: str) -> str:
    """The environment variable that sets a field."""
    return PLAIN_NAMES.get(field, PREFIX + field.upper())


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings; an empty value counts as unset. Raises SettingsError."""
    env = os.environ if environ is None else environ
    fields = {variable_of(name): name for name in Settings.__struct_fields__}
    for name in env:
        if name.startswith(PREFIX) and name not in fields:
            closest = difflib.get_close_matches(name, fields, n=1)
            hint = f"; did you mean {closest[0]}?" if closest else ""
            raise SettingsError(f"unknown setting {name}{hint}")
    given = {field: env[name] for name, field in fields.items() if env.get(name, "") != ""}
    for field in ("app_dir", "state_dir", "cache_dir", "model"):
        if field in given and (field != "model" or _is_folder(given[field])):
            given[field] = str(Path(given[field]).expanduser().absolute())
    try:
        settings = msgspec.convert(given, Settings, strict=False)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$.")
        field = path.rstrip("`")
        name, why = variable_of(field), f" ({_REASONS[field]})" if field in _REASONS else ""
        # A URL may hold a password.
        value = "" if field == "valkey_url" else f"={env.get(name)!r}"
        raise SettingsError(f"{name}{value}: {reason[:1].lower()}{reason[1:]}{why}") from None
    try:
        urlsplit(settings.valkey_url).port  # noqa: B018 - it raises
    except ValueError:
        raise SettingsError(f"{variable_of('valkey_url')}: host or port can't be read") from None
    if settings.health_port == settings.port:
        raise SettingsError(f"{variable_of('health_port')}={settings.port}: already used by PORT; choose another port")
    return settings
