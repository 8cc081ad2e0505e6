"""deploy/systemd's units, as far as tests need them. An option that is repeated has several lines."""

import configparser

from everstream.settings import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "deploy" / "systemd"
SHARED = FOLDER / "everstream-.service.d" / "hardened.conf"


class Options(dict):
    """A repeated option adds a line instead of replacing it."""

    def __setitem__(self, key, value):
        if key in self and isinstance(value, list):
            value = [*self[key], *value]
        super().__setitem__(key, value)


def read(path):
    parser = configparser.RawConfigParser(dict_type=Options, strict=False, delimiters="=", comment_prefixes="#")
    parser.optionxform = str
    parser.read(path)
    return {section: dict(parser[section]) for section in parser.sections()}


def service(part):
    """The unit's options, after those that all units have."""
    return read(SHARED)["Service"] | read(FOLDER / f"everstream-{part}.service")["Service"]


def environ_of(part):
    texts = [read(path)["Service"].get("Environment", "") for path in (SHARED, FOLDER / f"everstream-{part}.service")]
    return dict(setting.split("=", 1) for text in texts for setting in text.split())
