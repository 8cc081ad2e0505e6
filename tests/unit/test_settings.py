from pathlib import Path

import msgspec
import pytest
import valkey

from everstream.settings import (
    _PER_MODEL_FIELDS,
    PROJECT_ROOT,
    Settings,
    SettingsError,
    engine_environ,
    load_engine_settings,
    load_settings,
    variable_of,
)


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


@pytest.mark.parametrize(
    ("url", "with_password"),
    [
        ("redis://valkey:6379/0", "redis://:p%40ss%2Fword@valkey:6379/0"),
        (
            "rediss://user@[::1]:6379/0?ssl_cert_reqs=none",
            "rediss://user:p%40ss%2Fword@[::1]:6379/0?ssl_cert_reqs=none",
        ),
        ("unix:///run/valkey.sock", "unix://:p%40ss%2Fword@/run/valkey.sock"),
    ],
)
def test_valkey_password_from_a_file(tmp_path, url, with_password):
    path = tmp_path / "password"
    path.write_text("p@ss/word\n")
    settings = load_settings({"VALKEY_URL": url, "EVERSTREAM_VALKEY_PASSWORD_FILE": str(path)})
    assert settings.log_url == with_password
    assert valkey.Valkey.from_url(settings.log_url).get_connection_kwargs()["password"] == "p@ss/word"
    assert "p@ss" not in settings.safe_log_url and "p%40ss" not in settings.safe_log_url


def test_relative_path_of_a_password_file_is_absolute(monkeypatch, tmp_path):
    """Children have another working directory, and read the file again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "password").write_text("secret")
    settings = load_settings({"VALKEY_URL": "redis://host", "EVERSTREAM_VALKEY_PASSWORD_FILE": "password"})
    assert settings.path_variables()["EVERSTREAM_VALKEY_PASSWORD_FILE"] == str(tmp_path / "password")
    assert "secret" not in str(settings.path_variables())


@pytest.mark.parametrize(
    ("url", "content", "message"),
    [
        ("", b"secret", "EVERSTREAM_VALKEY_PASSWORD_FILE needs VALKEY_URL"),
        ("redis://:other@host", b"secret", "EVERSTREAM_VALKEY_PASSWORD_FILE and VALKEY_URL both have a password"),
        ("redis://host", None, "can't be read: No such file or directory"),
        ("redis://host", b"\xffsecret", "can't be read: it is not UTF-8"),
        ("redis://host", b"\n", "is empty"),
    ],
)
def test_unusable_password_file_is_refused_without_showing_it(tmp_path, url, content, message):
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError) as raised:
        load_settings({"VALKEY_URL": url, "EVERSTREAM_VALKEY_PASSWORD_FILE": str(path)})
    assert message in str(raised.value)
    assert "secret" not in str(raised.value) and "other" not in str(raised.value)


SEVERAL = {"MODELS": "chat=/chat tts=/tts"}


def test_several_models(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    settings = load_settings({"MODELS": "a=x 'b.2=with space' chat=. c=~/c", "HOME": "/home/me"})
    assert settings.served == (
        ("a", tmp_path / "x", "a"),
        ("b.2", tmp_path / "with space", "b.2"),
        ("chat", PROJECT_ROOT, "chat"),
        ("c", Path("~/c").expanduser(), "c"),
    )
    # Children have another working directory.
    monkeypatch.chdir("/")
    assert load_settings(settings.path_variables()).served == settings.served
    assert "EVERSTREAM_APP_DIR" not in settings.path_variables()


def test_dot_is_the_current_folder_if_it_has_a_model(monkeypatch, tmp_path):
    (tmp_path / "app.py").touch()
    monkeypatch.chdir(tmp_path)
    assert load_settings({"MODELS": "mine=."}).served == (("mine", tmp_path, "mine"),)


def test_single_model_has_no_queue_of_its_own():
    settings = load_settings({"MODEL": "/weights/name", "EVERSTREAM_APP_DIR": "/folder"})
    assert settings.served == (("name", Path("/folder"), ""),)
    assert engine_environ({"A": "b"}, settings.served[0]).items() >= {("A", "b")}


def test_settings_of_one_model():
    names = {"MODELS": "chat=/chat 'kokoro-v1.0=/tts'"}
    given = {
        **names,
        "MODEL": "org/name",
        "MODEL__CHAT": "/other",
        "ENGINE_ARGS": "--a",
        "ENGINE_ARGS__CHAT": "--b",
        "CUDA_VISIBLE_DEVICES__KOKORO_V1_0": "1",
        "EVERSTREAM_MAX_RUNNING__KOKORO_V1_0": "3",
        "HF_HOME__CHAT": "/hf",
        "AIRFLOW__CORE__DAGS": "is no setting of ours",
    }
    chat, tts = load_settings(given).served
    of_chat, of_tts = engine_environ(given, chat), engine_environ(given, tts)
    assert (of_chat["MODEL"], of_chat["ENGINE_ARGS"], of_chat["HF_HOME"]) == ("/other", "--b", "/hf")
    assert (of_tts["MODEL"], of_tts["ENGINE_ARGS"], of_tts["CUDA_VISIBLE_DEVICES"]) == ("org/name", "--a", "1")
    assert "CUDA_VISIBLE_DEVICES" not in of_chat and "HF_HOME" not in of_tts
    engine = load_engine_settings(of_tts)
    assert (engine.max_running, engine.app_path, engine.model_name) == (3, Path("/tts"), "kokoro-v1.0")
    assert load_engine_settings(of_chat).max_running == Settings().max_running


def test_engines_of_several_models_have_different_names():
    given = {**SEVERAL, "EVERSTREAM_ENGINE_NAME": "host"}
    names = [load_settings(engine_environ(given, model)).unique_engine_name for model in load_settings(given).served]
    assert names == ["host-chat", "host-tts"]
    assert load_settings({"EVERSTREAM_ENGINE_NAME": "host"}).unique_engine_name == "host"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"MODELS": "chat"}, "MODELS='chat': 'chat' is not NAME=FOLDER"),
        ({"MODELS": "a=b _=c"}, "MODELS='a=b _=c': '_=c' is not NAME=FOLDER"),
        ({"MODELS": f"{'a' * 65}=b"}, "is not NAME=FOLDER"),
        ({"MODELS": "a="}, "'a=' is not NAME=FOLDER"),
        ({"MODELS": " "}, "MODELS=' ': expected 1 to 32 of NAME=FOLDER, got 0"),
        ({"MODELS": " ".join(f"m{n}=x" for n in range(33))}, "expected 1 to 32 of NAME=FOLDER, got 33"),
        ({"MODELS": "a=x a=y"}, "two models are called a"),
        ({"MODELS": "a-b=x a.b=y"}, "settings that end in __A_B would be those of both a-b and a.b"),
        ({"MODELS": "a='x"}, 'MODELS="a=\'x": No closing quotation'),
        ({**SEVERAL, "EVERSTREAM_APP_DIR": "/x"}, "EVERSTREAM_APP_DIR and MODELS both name model folders"),
        ({**SEVERAL, "EVERSTREAM_MAX_RUNING__TTS": "1"}, "did you mean EVERSTREAM_MAX_RUNNING__TTS?"),
        (
            {**SEVERAL, "EVERSTREAM_MAX_RUNNING__TSS": "1"},
            "no model has this suffix; did you mean EVERSTREAM_MAX",
        ),
        ({**SEVERAL, "CUDA_VISIBLE_DEVICES__GPU": "1"}, "no model has this suffix; the suffixes are CHAT, TTS"),
        ({**SEVERAL, "EVERSTREAM_MAX_RUNNING__TTS": "x"}, "EVERSTREAM_MAX_RUNNING__TTS='x': expected `int`"),
        (
            {**SEVERAL, "EVERSTREAM_MAX_QUEUED__TTS": "1"},
            "EVERSTREAM_MAX_QUEUED__TTS: can't be set per model; these can: MODEL, ENGINE_ARGS, ",
        ),
        ({**SEVERAL, "MODELS__TTS": "a=b"}, "MODELS__TTS: can't be set per model"),
        # The web processes use these too, and what engines do with them concerns all models.
        ({**SEVERAL, "EVERSTREAM_LEASE_S__TTS": "3"}, "EVERSTREAM_LEASE_S__TTS: can't be set per model"),
        ({**SEVERAL, "EVERSTREAM_RETENTION_S__TTS": "3"}, "EVERSTREAM_RETENTION_S__TTS: can't be set per model"),
        ({"MODEL__TTS": "x"}, "MODEL__TTS: MODELS is not set, so there is no model TTS; set MODEL instead"),
        ({**SEVERAL, "EVERSTREAM_ENGINE_MODEL": "x"}, "EVERSTREAM_ENGINE_MODEL='x': MODELS has chat, tts"),
        ({"EVERSTREAM_ENGINE_MODEL": "x"}, "EVERSTREAM_ENGINE_MODEL='x': MODELS is not set"),
    ],
)
def test_invalid_setting_of_several_models_is_named(environ, message):
    with pytest.raises(SettingsError) as raised:
        load_settings(environ)
    assert message in str(raised.value)


def test_settings_per_model_are_listed_once():
    assert len(set(_PER_MODEL_FIELDS)) == len(_PER_MODEL_FIELDS)
    assert set(_PER_MODEL_FIELDS) <= set(Settings.__struct_fields__)


def test_engine_must_know_which_of_several_models_it_runs():
    with pytest.raises(
        SettingsError, match="EVERSTREAM_ENGINE_MODEL must name the model that this engine runs: chat, tts"
    ):
        load_engine_settings(SEVERAL)
    assert load_engine_settings({}).engine_model == ""
