"""Whether requests are traced: OpenTelemetry's own variables decide, and configure its SDK. Called once per process.

In: the environment. Out: a `Tracing`, or None. `otel`, which imports the SDK, is imported only if traces are on.
"""

import importlib.util
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from everstream.settings import SettingsError

if TYPE_CHECKING:
    from everstream.otel import Tracing

EXPORTER = "OTEL_TRACES_EXPORTER"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
"""The one for traces counts first."""
PROTOCOL = "http/protobuf"
PACKAGES = {
    "opentelemetry.sdk.trace": "opentelemetry-sdk",
    "opentelemetry.exporter.otlp.proto.http": "opentelemetry-exporter-otlp-proto-http",
}


def are_on(environ: Mapping[str, str]) -> bool:
    """By the specification, an empty value counts as unset."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or _exporter(environ) == "none":
        return False
    return any(environ.get(name, "").strip() for name in (EXPORTER, *ENDPOINTS))


def check(environ: Mapping[str, str]) -> None:
    """Raises SettingsError if traces are asked for and can't be sent."""
    if not are_on(environ):
        return
    if (exporter := _exporter(environ)) not in ("", "otlp"):
        raise SettingsError(f"{EXPORTER}={exporter:.100}: it must be otlp, the only exporter there is, or none")
    name = next((name for name in PROTOCOLS if environ.get(name, "").strip()), "")
    if name and (protocol := environ[name].strip()) != PROTOCOL:
        # gRPC's threads and gevent's greenlets block each other.
        raise SettingsError(
            f"{name}={protocol:.100}: traces are sent by {PROTOCOL} alone, to port 4318 of most collectors"
        )
    if missing := [package for module, package in PACKAGES.items() if not _is_installed(module)]:
        raise SettingsError(
            f"OTEL_* variables turn traces on, which needs {' and '.join(missing)}: install the versions in "
            f"requirements-web.txt, or set OTEL_SDK_DISABLED=true"
        )
    from everstream.otel import check_variables  # noqa: PLC0415

    try:
        check_variables()
    except ValueError as error:
        raise SettingsError(f"OTEL_* variables: OpenTelemetry's SDK refuses them: {error}") from None


def start(service: str) -> "Tracing | None":
    """Call after the last fork, because the export runs in a thread. `service`: the process's name in traces, unless
    OTEL_* gives it one."""
    if not are_on(os.environ):
        return None
    from everstream.otel import Tracing  # noqa: PLC0415

    return Tracing(service)


def _exporter(environ: Mapping[str, str]) -> str:
    return environ.get(EXPORTER, "").strip().lower()


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
