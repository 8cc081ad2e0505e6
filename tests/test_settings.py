import msgspec
import pytest

from everstream.settings import REPO_ROOT, Settings, SettingsError, load_settings, variable_of


def test_defaults_and_types():
    settings = load_settings({"PORT": "9000", "EVERSTREAM_LEASE_S": "2.5", "MODEL": "", "HOME": "/nowhere"})
    assert (settings.port, settings.lease_s, settings.model) == (9000, 2.5, "smollm2-135m-instruct")


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"EVERSTREAM_LEASE": "1"}, "unknown setting EVERSTREAM_LEASE; did you mean EVERSTREAM_LEASE_S?"),
        ({"EVERSTREAM_QQQQQ": "1"}, "unknown setting EVERSTREAM_QQQQQ"),
        ({"PORT": "many"}, "PORT='many': expected `int`, got `str`"),
        ({"PORT": "70000"}, "PORT='70000': expected `int` <= 65535"),
        ({"EVERSTREAM_HEALTH_PORT": "-1"}, "EVERSTREAM_HEALTH_PORT='-1': expected `int` >= 0"),
        ({"EVERSTREAM_HEALTH_PORT": "8000"}, "EVERSTREAM_HEALTH_PORT=8000: is PORT already; it must be another"),
        ({"EVERSTREAM_NAMESPACE": "a b"}, "EVERSTREAM_NAMESPACE='a b'"),
        ({"EVERSTREAM_HEARTBEAT_S": "31"}, "EVERSTREAM_HEARTBEAT_S='31': expected `float` <= 30.0 (the shipped nginx"),
    ],
)
def test_a_wrong_setting_is_named(environ, message):
    with pytest.raises(SettingsError, match="^" + message.replace("?", r"\?").replace("(", r"\(")):
        load_settings(environ)


@pytest.mark.parametrize(
    ("model", "name"),
    [("org/name", "org/name"), ("/models/name/", "name"), ("./models/name", "name"), ("~/name", "name")],
)
def test_a_folder_is_known_by_its_last_part(model, name):
    assert load_settings({"MODEL": model}).model_name == name


def test_the_password_of_valkey_is_not_shown():
    settings = load_settings({"VALKEY_URL": "rediss://user:secret@host:6380/1?ssl_cert_reqs=none"})
    assert settings.safe_log_url == "rediss://host:6380/1"


def test_every_setting_stands_in_the_readme_with_its_default():
    readme = (REPO_ROOT / "README.md").read_text()
    for field in msgspec.structs.fields(Settings):
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{variable_of(field.name)}` |"))
        told = row.split("|")[2].strip(" `")
        if field.name not in ("app_dir", "state_dir", "cache_dir", "engine_name"):
            assert told == str(field.default).removesuffix(".0")
