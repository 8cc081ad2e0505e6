"""Runs uv with pip's configuration: `python -m everstream.uv pip install …`. For `tools/` and the demo model.

uv does not read pip's configuration. This passes on its indexes, certificates and proxies, so a machine where
`pip install` works needs no further setup. Standard library only: the set-up runs it before anything is installed.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

UV_VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
    "retries": "UV_HTTP_RETRIES",
}
"""pip's options, each with uv's equivalent variable."""
SEPARATORS = {"find-links": ","}
"""Separators between the values of options that take several; a space for those not listed."""


def executable() -> str:
    """uv's path: next to this Python's executable, where pip installs it."""
    return str(Path(sys.executable).parent / "uv")


def environment() -> dict[str, str]:
    """This process's environment, plus pip's configuration as uv's variables."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return dict(os.environ) | uv_variables(listed.splitlines(), os.environ)


def uv_variables(pip_config: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """uv's variables, from the lines of `pip config list`. Leaves out those already set in `environ`."""
    options: dict[str, str] = {}
    # Sections from the broadest to the narrowest; a later one wins, as with pip.
    for section in ("global", "install", ":env:"):
        options |= {name: value for of_section, name, value in _parsed(pip_config) if of_section == section}
    found = {
        UV_VARIABLES[name]: SEPARATORS.get(name, " ").join(value.split())
        for name, value in options.items()
        if name in UV_VARIABLES and value.strip()
    }
    if "UV_INDEX" in found:
        # pip takes the best version across its indexes; uv would stop at the first index that has the name.
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return {name: value for name, value in found.items() if not environ.get(name)}


def _parsed(pip_config: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Section, option and value of lines such as `global.timeout='60'`."""
    for line in pip_config:
        key, _, quoted = line.strip().partition("=")
        section, _, name = key.rpartition(".")
        if quoted:
            yield section, name.removeprefix("default-"), str(ast.literal_eval(quoted))


if __name__ == "__main__":
    os.execve(executable(), [executable(), *sys.argv[1:]], environment())  # noqa: S606
