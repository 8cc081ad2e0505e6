import msgspec
import pytest

from everstream.settings import PROJECT_ROOT, Settings, SettingsError, load_settings, variable_of


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
        ({"EVERSTREAM_HEALTH_PORT": "8000"}, "EVERSTREAM_HEALTH_PORT=8000: already used by PORT; choose another port"),
        ({"EVERSTREAM_NAMESPACE": "a b"}, "EVERSTREAM_NAMESPACE='a b'"),
        ({"EVERSTREAM_HEARTBEAT_S": "31"}, "EVERSTREAM_HEARTBEAT_S='31': expected `float` <= 30.0 (the shipped nginx"),
    ],
)
def test_invalid_setting_is_named(environ, message):
    with pytest.raises(SettingsError, match="^" + message.replace("?", r"\?").replace("(", r"\(")):
        load_settings(environ)


@pytest.mark.parametrize(
    ("model", "name"),
    [("org/name", "org/name"), ("/models/name/", "name"), ("./models/name", "name"), ("~/name", "name")],
)
def test_model_folder_is_named_by_its_last_part(model, name):
    assert load_settings({"MODEL": model}).model_name == name


def test_valkey_password_is_not_shown():
    settings = load_settings({"VALKEY_URL": "rediss://user:secret@host:6380/1?ssl_cert_reqs=none"})
    assert settings.safe_log_url == "rediss://host:6380/1"


def test_docs_list_every_setting_with_its_default():
    docs = (PROJECT_ROOT / "docs" / "settings.md").read_text()
    for field in msgspec.structs.fields(Settings):
        row = next(line for line in docs.splitlines() if line.startswith(f"| `{variable_of(field.name)}` |"))
        documented = row.split("|")[2].strip(" `")
        if field.name not in ("app_dir", "state_dir", "cache_dir", "engine_name"):
            assert documented == str(field.default).removesuffix(".0")


def test_paths_are_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    environ = {"EVERSTREAM_APP_DIR": "mine", "EVERSTREAM_STATE_DIR": "./st", "MODEL": "../weights"}
    absolute = {
        "EVERSTREAM_APP_DIR": str(tmp_path / "mine"),
        "EVERSTREAM_STATE_DIR": str(tmp_path / "st"),
        "MODEL": str(tmp_path / ".." / "weights"),
    }
    assert load_settings(environ).path_variables() == absolute
    assert load_settings(environ).model_name == "weights"
    assert "MODEL" not in load_settings({"MODEL": "org/name"}).path_variables()


@pytest.mark.parametrize("url", ["secret", "localhost:6379", "redis://:secret@host:secret", "http://:secret@host"])
def test_wrong_valkey_url_is_refused_without_showing_it(url):
    with pytest.raises(SettingsError) as raised:
        load_settings({"VALKEY_URL": url})
    assert str(raised.value).startswith("VALKEY_URL: ") and "secret" not in str(raised.value)
