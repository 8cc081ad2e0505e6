"""deploy/systemd: systemd can read the units, they are locked in, and they agree with the settings and the containers.
`tests/stack/test_systemd_commands.py` runs their commands.
"""

import shutil
import subprocess

import pytest

from everstream.cli import COMMANDS
from everstream.settings import Settings, load_settings, variable_of
from everstream.web.limits import open_files
from harness import compose_file
from harness.gunicorn_conf import graceful_timeout_s
from harness.sandbox import VIRTUAL_ENVIRONMENT
from harness.systemd_units import FOLDER, environ_of, read, service

PARTS = {"web": 2.0, "engine": 2.0, "valkey": 1.0}
"""The most that each may be exposed, of 10, as `systemd-analyze security` counts."""
SETTINGS = {variable_of(field) for field in Settings.__struct_fields__}


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    """The units, with the command that this environment has."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing: apt-get install systemd")
    folder = tmp_path_factory.mktemp("units") / "systemd"
    shutil.copytree(FOLDER, folder)
    for path in folder.glob("*.service"):
        path.write_text(path.read_text().replace("/opt/everstream/.venv/bin", str(VIRTUAL_ENVIRONMENT / "bin")))
    return folder


def analyze(units, *arguments):
    environ = {"SYSTEMD_UNIT_PATH": f"{units}:", "PATH": "/usr/bin:/bin", "SYSTEMD_COLORS": "0", "LC_ALL": "C.UTF-8"}
    command = ["systemd-analyze", "--no-pager", *arguments]
    return subprocess.run(command, cwd=units, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_systemd_can_read_the_units(units):
    done = analyze(units, "verify", "./everstream.target", *(f"./everstream-{part}.service" for part in PARTS))
    # It also warns of what it doesn't know.
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("part", PARTS)
def test_units_are_locked_in(units, part):
    threshold = str(int(10 * PARTS[part]))
    unit = f"./everstream-{part}.service"
    done = analyze(units, "security", "--offline=true", f"--threshold={threshold}", unit)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Overall exposure level" in done.stdout


@pytest.mark.parametrize("part", PARTS)
def test_commands_exist(part):
    executable, command = service(part)["ExecStart"].split()
    assert command in COMMANDS and command == part
    assert (VIRTUAL_ENVIRONMENT / "bin" / executable.rpartition("/")[2]).exists()


@pytest.mark.parametrize("part", PARTS)
def test_every_setting_is_known(part):
    environ = environ_of(part)
    assert environ.keys() <= SETTINGS | compose_file.FOREIGN_VARIABLES
    load_settings(environ)
    assert not any("TOKEN" in name or "PASSWORD" in name for name in environ.keys() - {"HF_TOKEN_PATH"})


def test_valkey_has_no_network():
    assert (service("valkey")["PrivateNetwork"], service("valkey")["RestrictAddressFamilies"]) == ("yes", "AF_UNIX")


def test_all_parts_belong_to_the_target():
    names = {f"everstream-{part}.service" for part in PARTS}
    assert {path.name for path in FOLDER.glob("*.service")} == names
    assert set(read(FOLDER / "everstream.target")["Unit"]["Wants"].split()) == names
    for name in names:
        unit = read(FOLDER / name)["Unit"]
        assert unit["PartOf"] == "everstream.target"
        if name != "everstream-valkey.service":
            assert "everstream-valkey.service" in unit["After"] and unit["Wants"] == "everstream-valkey.service"


def test_folders_are_those_of_the_settings():
    valkey, engine = service("valkey"), service("engine")
    assert f"/var/lib/{valkey['StateDirectory']}" == environ_of("valkey")["EVERSTREAM_STATE_DIR"]
    assert f"/var/cache/{engine['CacheDirectory']}" == environ_of("engine")["EVERSTREAM_CACHE_DIR"]
    (credential,) = [line.split(":")[0] for line in engine["LoadCredential"].splitlines()]
    assert environ_of("engine")["HF_TOKEN_PATH"] == f"%d/{credential}"


def test_limits_suffice():
    assert int(service("web")["LimitNOFILE"]) >= open_files(Settings())
    assert int(service("web")["TimeoutStopSec"]) > graceful_timeout_s({})
    memory = {part: compose_file.services()[part]["mem_limit"].upper() for part in ("web", "valkey")}
    assert {part: service(part)["MemoryMax"] for part in memory} == memory


def test_parts_that_must_run_at_once_outweigh_the_engine():
    """In both files by the same factor. The defaults are 100 and 1024."""
    for part in ("web", "valkey"):
        assert int(service(part)["CPUWeight"]) / 100 == compose_file.services()[part]["cpu_shares"] / 1024 > 1
    assert "CPUWeight" not in service("engine") and "cpu_shares" not in compose_file.services()["engine"]
