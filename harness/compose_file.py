"""docker-compose.yml as Docker Compose reads it, with its defaults for variables; and deploy/docker-compose.tls.yml."""

import re

import yaml

from everstream.settings import PROJECT_ROOT

COMPOSE = PROJECT_ROOT / "docker-compose.yml"
TLS = PROJECT_ROOT / "deploy" / "docker-compose.tls.yml"
FOREIGN_VARIABLES = {"HOME", "HF_HOME", "HF_TOKEN_PATH", "VLLM_NO_USAGE_STATS"}
"""What others read: the shell, Hugging Face's library and vLLM."""
_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\?[^}]*)?\})")


class _Loader(yaml.SafeLoader):
    """Reads what is marked `!override`, to replace a list instead of adding to it, as the list."""


_Loader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node, deep=True))


def read(path=COMPOSE, **variables):
    return _interpolated(yaml.load(path.read_text(), _Loader), variables)


def services(**variables):
    return read(**variables)["services"]


def services_of_tls():
    return read(TLS)["services"]


def dockerfile_commands():
    """The command of each image in deploy/Dockerfile, and the user that it runs as, by the image's name."""
    stages = re.split(r"^FROM \S+ AS ", (PROJECT_ROOT / "deploy" / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    found = {}
    for stage in stages:
        command, user = (
            re.search(r"^CMD (\[.*\])$", stage, re.MULTILINE),
            re.search(r"^USER (.*)$", stage, re.MULTILINE),
        )
        if command:
            found[stage.split()[0]] = (yaml.safe_load(command[1]), user[1] if user else "root")
    return found


def _interpolated(value, variables):
    if isinstance(value, dict):
        return {key: _interpolated(each, variables) for key, each in value.items()}
    if isinstance(value, list):
        return [_interpolated(each, variables) for each in value]
    return _VARIABLE.sub(lambda found: _value(found, variables), value) if isinstance(value, str) else value


def _value(found, variables):
    return "$" if found["escaped"] else variables.get(found["name"]) or found["default"] or ""
