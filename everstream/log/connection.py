"""Connection options that both clients of the log use."""

from typing import Any

COMMAND_TIMEOUT_S = 5.0


def keepalive(url: str) -> dict[str, Any]:
    """Options for a subscription, which has no read timeout: TCP keepalive detects a dead peer."""
    return {} if url.startswith("unix:") else {"socket_keepalive": True}
