"""Settings: each process reads them once from the environment into one frozen, typed object.

Five names are short, as people type them (`PORT`, `MODEL`, `MODELS`, `ENGINE_ARGS`, `VALKEY_URL`), one is gunicorn's
own (`WEB_CONCURRENCY`), and the rest begin with `EVERSTREAM_`. An unknown `EVERSTREAM_*` name is an error that suggests
the closest one: a misspelt setting must not silently become the default.
"""

import difflib
import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Meta

from everstream import model_list
from everstream.model_list import ModelFolder

PREFIX = "EVERSTREAM_"
PLAIN_NAMES = {
    "port": "PORT",
    "model": "MODEL",
    "models": "MODELS",
    "engine_args": "ENGINE_ARGS",
    "valkey_url": "VALKEY_URL",
    "workers": "WEB_CONCURRENCY",
}
CLIENT_NAMES = ("EVERSTREAM_URL", "EVERSTREAM_API_KEY")
"""Those that the Python client and `everstream publish` read. They are no settings of a server, but may be set where
one runs."""
DEMO_MODEL = "smollm2-135m-instruct"
MAX_FLUSH_MS = 1000
MAX_HEARTBEAT_S = 30
_REASONS = {
    "valkey_url": "for example redis://host:6379/0, rediss://user:password@host, unix:///run/valkey.sock",
    "jwt_secret": "a shorter one could be guessed",
    "jwt_jwks": "a URL or an absolute path",
    "heartbeat_s": "the shipped nginx and most other proxies cut 60 s of silence, and one heartbeat may be late",
}
"""Reasons for the limits that may surprise."""
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_SECRET_FIELDS = ("valkey_url", "jwt_secret")
"""Their values stand in no message."""
_PER_MODEL_FIELDS = (
    "model",
    "engine_args",
    "cache_dir",
    "engine_name",
    "max_running",
    "max_output_bytes",
    "max_generation_bytes",
    "infer_idle_timeout_s",
    "infer_timeout_s",
    "infer_stop_timeout_s",
    "abandon_after_s",
    "log_level",
)
"""May be set for one of several models, as `X__NAME`: only its engine uses them, and only for its own work."""
_PACKAGE = Path(__file__).resolve().parent
PROJECT_ROOT = _PACKAGE / "_project" if (_PACKAGE / "_project").is_dir() else _PACKAGE.parent
"""The folder of `app.py`, `gunicorn.conf.py`, `templates/` etc.: the checkout, or a copy of those files in a wheel."""


Limit = Annotated[int, Meta(ge=0, le=1 << 50)]
"""0: no limit."""


class SettingsError(Exception):
    """A setting is invalid; the message names the variable and what is allowed."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings; docs/settings.md has the same table. Times are in seconds unless the name says otherwise."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535)] = 8000
    health_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    workers: Annotated[int, Meta(ge=1, le=256)] = 2
    model: str = DEMO_MODEL
    models: str = ""
    engine_args: str = ""
    valkey_url: Annotated[str, Meta(pattern=r"^$|^(rediss?|valkeys?|unix)://.")] = ""
    valkey_password_file: str = ""
    """A file, because `docker inspect` shows a container's environment, and every child inherits a process's."""

    app_dir: str = str(PROJECT_ROOT)
    state_dir: str = ""
    cache_dir: str = ""
    namespace: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = "everstream"
    engine_name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""
    engine_model: str = ""

    max_running: Annotated[int, Meta(ge=1, le=4096)] = 128
    max_queued: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    max_prompt_chars: Annotated[int, Meta(ge=1, le=1_048_576)] = 200_000
    max_body_bytes: Annotated[int, Meta(ge=1024, le=64 << 20)] = 4 << 20
    max_output_bytes: Annotated[int, Meta(ge=1024, le=67_108_864)] = 1 << 20
    max_generation_bytes: Annotated[int, Meta(ge=1024, le=256 << 20)] = 64 << 20
    max_log_bytes: Annotated[int, Meta(ge=65536)] = 1 << 30
    max_topic_bytes: Annotated[int, Meta(ge=65536)] = 256 << 20
    topic_history: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    topic_retention_s: Annotated[int, Meta(ge=1, le=31_536_000)] = 604_800
    max_streams: Annotated[int, Meta(ge=1, le=60_000)] = 4000
    proxies: Annotated[int, Meta(ge=0, le=10)] = 0
    lease_s: Annotated[float, Meta(ge=0.5, le=600)] = 10.0
    heartbeat_s: Annotated[float, Meta(ge=0.2, le=MAX_HEARTBEAT_S)] = 15.0
    infer_idle_timeout_s: Annotated[float, Meta(ge=0, le=86_400)] = 600.0
    infer_timeout_s: Annotated[float, Meta(ge=0, le=604_800)] = 86_400.0
    infer_stop_timeout_s: Annotated[float, Meta(ge=0.1, le=3600)] = 30.0
    retention_s: Annotated[int, Meta(ge=1, le=604_800)] = 600
    abandon_after_s: Annotated[float, Meta(ge=1, le=604_800)] = 60.0
    post_abandon_after_s: Annotated[float, Meta(ge=1, le=604_800)] = 5.0
    send_timeout_s: Annotated[float, Meta(ge=0.5, le=3600)] = 30.0
    body_timeout_s: Annotated[float, Meta(ge=0.5, le=600)] = 20.0
    drain_s: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    retry_ms: Annotated[int, Meta(ge=10, le=600_000)] = 1000
    flush_ms: Annotated[int, Meta(ge=0, le=MAX_FLUSH_MS)] = 0
    reader_queue_bytes: Annotated[int, Meta(ge=1024, le=67_108_864)] = 256 << 10
    client_requests_per_minute: Limit = 0
    client_tokens_per_minute: Limit = 0
    client_running: Limit = 0
    client_queued: Limit = 0
    client_streams: Limit = 0
    client_log_bytes: Limit = 0
    client_topic_bytes: Limit = 0
    access: Annotated[str, Meta(pattern="^(auto|keys|open)$")] = "auto"
    hosts: str = ""
    cors_origins: str = ""
    jwt_secret: Annotated[str, Meta(pattern="^$|^.{32}")] = ""
    jwt_jwks: Annotated[str, Meta(pattern="^$|^(https?://|/).")] = ""
    jwt_issuer: str = ""
    jwt_audience: str = ""
    fsync: Annotated[str, Meta(pattern="^(always|everysec)$")] = "always"
    demo: Annotated[int, Meta(ge=0, le=1)] = 0
    log_format: Annotated[str, Meta(pattern="^(auto|json|text)$")] = "auto"
    log_level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$")] = "info"

    @property
    def is_exposed(self) -> bool:
        """Whether others than this machine's users are expected: then it never serves without keys by itself."""
        return not _is_loopback(self.host) or self.proxies > 0 or bool(self.host_names) or self.accepts_jwts

    @property
    def host_names(self) -> frozenset[str]:
        """The names in HOSTS, in lower case."""
        return frozenset(name.lower() for name in _listed(self.hosts))

    @property
    def cors_list(self) -> frozenset[str]:
        """The origins whose pages may call the service."""
        return frozenset(_listed(self.cors_origins))

    @property
    def accepts_jwts(self) -> bool:
        return bool(self.jwt_secret or self.jwt_jwks)

    @property
    def state_path(self) -> Path:
        """Where the embedded Valkey keeps its data: `EVERSTREAM_STATE_DIR`, or the user's state directory."""
        return Path(self.state_dir) if self.state_dir else _xdg("XDG_STATE_HOME", ".local/state")

    @property
    def served(self) -> tuple[ModelFolder, ...]:
        """The models that are served, at least one."""
        if not self.models:
            return (ModelFolder(self.weights_name, Path(self.app_dir).resolve(), ""),)
        folders = model_list.parse(self.models)
        return tuple(ModelFolder(name, Path(folder).resolve(), name) for name, folder in folders.items())

    @property
    def own_model(self) -> ModelFolder:
        """The model that this process runs, if it is an engine; the first one in any other process."""
        return next((model for model in self.served if model.queue == self.engine_model), self.served[0])

    @property
    def app_path(self) -> Path:
        """The model folder of `own_model`."""
        return self.own_model.path

    @property
    def unique_engine_name(self) -> str:
        """The engine's name in the log. Each of several models has its own engine on a host."""
        name = self.engine_name or socket.gethostname()
        return f"{name}-{self.engine_model}" if self.engine_model else name

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
        fields = ["state_dir", "cache_dir", "valkey_password_file", "models" if self.models else "app_dir"]
        fields = [field for field in fields if getattr(self, field)] + (["model"] if self.model_is_folder else [])
        return {variable_of(field): getattr(self, field) for field in fields}

    @property
    def model_name(self) -> str:
        """The name of `own_model` that clients see."""
        return self.own_model.name

    @property
    def weights_name(self) -> str:
        """MODEL's name: the last part of a folder's path, or a hub id unchanged."""
        return Path(self.model).name if self.model_is_folder else self.model

    @property
    def model_is_folder(self) -> bool:
        """Whether MODEL is a folder, not a hub id."""
        return _is_folder(self.model)


def _listed(text: str) -> list[str]:
    """What a setting lists, separated by commas or spaces."""
    return text.replace(",", " ").split()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
    models = _read_models(env)
    variables = {variable_of(name): name for name in Settings.__struct_fields__}
    _check_names(env, variables, models)
    given = {field: env[name] for name, field in variables.items() if env.get(name, "") != ""}
    for field in ("app_dir", "state_dir", "cache_dir", "valkey_password_file", "model"):
        if field in given and (field != "model" or _is_folder(given[field])):
            given[field] = _absolute(given[field])
    if models:
        given["models"] = model_list.render(models)
    settings = _convert(given, env)
    _check_together(settings, models, given)
    return _with_password(settings) if settings.valkey_password_file else settings


def load_engine_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """The same for an engine process. Raises SettingsError if several models are served and none is chosen."""
    settings = load_settings(environ)
    check_engine_model(settings)
    return settings


def check_engine_model(settings: Settings) -> None:
    """Raises SettingsError if several models are served and none is chosen for this engine."""
    if settings.models and not settings.engine_model:
        raise SettingsError(
            f"{model_list.MODEL_VARIABLE} must name the model that this engine runs: {_names(settings)}"
        )


def engine_environ(environ: Mapping[str, str], model: ModelFolder) -> dict[str, str]:
    """The environment of this model's engine, with absolute paths. Raises SettingsError."""
    own = dict(environ)
    if model.queue:
        own = model_list.engine_environ(environ, _read_models(environ), model.name)
    return own | load_settings(own).path_variables()


def _read_models(env: Mapping[str, str]) -> dict[str, str]:
    """The absolute folders of MODELS by name; empty if only one model is served."""
    text = env.get("MODELS", "")
    try:
        folders = model_list.parse(text) if text else {}
    except ValueError as error:
        raise SettingsError(f"MODELS={text[:200]!r}: {error}") from None
    return {name: _absolute_model(folder) for name, folder in folders.items()}


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _absolute_model(folder: str) -> str:
    # `chat=.` is the chat model, also where Everstream is installed as a package and `.` is any folder.
    is_chat_model = folder == "." and not Path("app.py").exists()
    return str(PROJECT_ROOT) if is_chat_model else _absolute(folder)


def _check_names(env: Mapping[str, str], variables: Mapping[str, str], models: Mapping[str, str]) -> None:
    """Raises SettingsError for a name that only looks like a setting."""
    for name in env:
        try:
            model_list.check_variable(name, models)
        except ValueError as error:
            raise SettingsError(f"{name}: {error}") from None
        base, model = model_list.split(name, models) or (name, "")
        if base.startswith(PREFIX) and base not in variables and name not in CLIENT_NAMES:
            closest = difflib.get_close_matches(base, [*variables, *CLIENT_NAMES], n=1)
            hint = f"; did you mean {closest[0]}{name.removeprefix(base)}?" if closest else ""
            raise SettingsError(f"unknown setting {name}{hint}")
        if model and base in variables:
            _check_of_one_model(name, variables[base], env)


def _check_of_one_model(name: str, field: str, env: Mapping[str, str]) -> None:
    if field not in _PER_MODEL_FIELDS:
        allowed = ", ".join(variable_of(each) for each in _PER_MODEL_FIELDS)
        raise SettingsError(f"{name}: can't be set per model; these can: {allowed}")
    if env[name]:
        _convert({field: env[name]}, env, {field: name})


def _convert(given: Mapping[str, str], env: Mapping[str, str], names: Mapping[str, str] = {}) -> Settings:
    """`names`: the variables that these fields come from, if not those of `variable_of`."""
    try:
        return msgspec.convert(given, Settings, strict=False)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$.")
        field = path.rstrip("`")
        name = names.get(field, variable_of(field))
        why = f" ({_REASONS[field]})" if field in _REASONS else ""
        # A URL may hold a password.
        value = "" if field in _SECRET_FIELDS else f"={env.get(name)!r}"
        raise SettingsError(f"{name}{value}: {reason[:1].lower()}{reason[1:]}{why}") from None


def _check_together(settings: Settings, models: Mapping[str, str], given: Mapping[str, str]) -> None:
    """What no single field shows. Raises SettingsError."""
    try:
        urlsplit(settings.valkey_url).port  # noqa: B018 - it raises
    except ValueError:
        raise SettingsError(f"{variable_of('valkey_url')}: host or port can't be read") from None
    if settings.health_port == settings.port:
        raise SettingsError(f"{variable_of('health_port')}={settings.port}: already used by PORT; choose another port")
    for origin in settings.cors_list - {"*"}:
        if not _ORIGIN.fullmatch(origin):
            raise SettingsError(
                f"{variable_of('cors_origins')}={origin[:200]!r}: an origin is a scheme, a host and perhaps a port, "
                f"for example https://app.example.com"
            )
    for name in settings.host_names - {"*"}:
        if not _HOST_NAME.fullmatch(name):
            raise SettingsError(f"{variable_of('hosts')}={name[:200]!r}: a name has no scheme, port or path")
    if (settings.jwt_issuer or settings.jwt_audience) and not settings.accepts_jwts:
        raise SettingsError(f"{variable_of('jwt_issuer')} and _AUDIENCE need {variable_of('jwt_jwks')} or _SECRET")
    if settings.jwt_jwks and not (settings.jwt_issuer and settings.jwt_audience):
        raise SettingsError(
            f"{variable_of('jwt_jwks')} needs {variable_of('jwt_issuer')} and {variable_of('jwt_audience')}: a "
            f"provider has tokens for other services, too"
        )
    if settings.jwt_jwks and settings.jwt_secret:
        raise SettingsError(f"{variable_of('jwt_jwks')} and {variable_of('jwt_secret')}: set one of them")
    if models and "app_dir" in given:
        raise SettingsError("EVERSTREAM_APP_DIR and MODELS both name model folders: unset one of them")
    if settings.engine_model and settings.engine_model not in models:
        which = f"MODELS has {_names(settings)}" if models else "MODELS is not set"
        raise SettingsError(f"{model_list.MODEL_VARIABLE}={settings.engine_model!r}: {which}")


def _with_password(settings: Settings) -> Settings:
    """With the password in `valkey_url`. Raises SettingsError, whose message never has the password."""
    name, path = variable_of("valkey_password_file"), settings.valkey_password_file
    parts = urlsplit(settings.valkey_url)
    if not settings.valkey_url:
        raise SettingsError(f"{name} needs {variable_of('valkey_url')}: the embedded Valkey has no password")
    if parts.password:
        raise SettingsError(f"{name} and {variable_of('valkey_url')} both have a password: remove one of them")
    try:
        password = Path(path).read_bytes().decode().rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}={path!r} can't be read: {getattr(error, 'strerror', 'it is not UTF-8')}") from None
    if not password:
        raise SettingsError(f"{name}={path!r} is empty")
    user, _, host = parts.netloc.rpartition("@")
    url = parts._replace(netloc=f"{user.rstrip(':')}:{quote(password, safe='')}@{host}").geturl()
    return msgspec.structs.replace(settings, valkey_url=url)


def _names(settings: Settings) -> str:
    return ", ".join(model.name for model in settings.served)
