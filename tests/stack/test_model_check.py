"""`everstream check`: what it says of model folders, good and bad."""

import os
import subprocess
import sys

import pytest

from everstream.settings import PROJECT_ROOT
from harness.stack import MODELS

TIMEOUT_S = 60


def check(folder, **environ):
    command = [sys.executable, "-m", "everstream.cli", "check", str(folder)]
    options = {"cwd": PROJECT_ROOT, "env": os.environ | environ, "timeout": TIMEOUT_S}
    ran = subprocess.run(command, check=False, capture_output=True, text=True, **options)
    return ran.returncode, ran.stdout + ran.stderr


def test_model_that_works():
    status, output = check(MODELS / "threaded")
    assert status == 0, output
    assert 'word          STRING    [1]    yes       ["word"]' in output
    assert "piece by piece" in output and "one request at a time" in output
    assert 'infer({"word":"word","count":3})' in output
    assert (
        '{"text":"word-1 "}\n{"text":"word-2 "}\n{"text":"word-3 "}\ndone | 3 outputs, finish_reason stop\n' in output
    )


def test_examples_in_one_piece():
    status, output = check(PROJECT_ROOT / "examples" / "image")
    assert status == 0, output
    assert "in one piece" in output and '{"image":"iVBOR' in output and "… (" in output


MODEL = "class InferlessPythonModel:\n    def infer(self, inputs):\n        {}\n"


@pytest.mark.parametrize(
    ("schema", "app", "message"),
    [
        ("INPUT_SCHEMA = {'x': {'datatype': 'TEXT'}}", MODEL.format("pass"), "unknown datatype 'TEXT'"),
        ("INPUT_SCHEMA = {}", "import nothing_of_this_name", "app.py:1: import app raised ModuleNotFoundError"),
        ("INPUT_SCHEMA = {}", "class InferlessPythonModel: pass", "has no method infer"),
        ("INPUT_SCHEMA = {}", MODEL.format("raise ValueError('no')"), "fail | the model raised ValueError: no"),
        ("INPUT_SCHEMA = {}", MODEL.format("raise SystemExit(3)"), "fail | the model raised SystemExit: 3"),
        ("INPUT_SCHEMA = {}", MODEL.format("return {'x': float('inf')}"), "'x' holds inf"),
        (
            "INPUT_SCHEMA = {'x': {'datatype': 'BOOL', 'required': True, 'example': 'yes'}}",
            MODEL.format("pass"),
            "the examples in INPUT_SCHEMA are not valid: x must be true or false",
        ),
        (None, MODEL.format("pass"), "input_schema.py does not exist"),
    ],
)
def test_model_that_does_not_work(tmp_path, schema, app, message):
    if schema is not None:
        (tmp_path / "input_schema.py").write_text(schema)
    (tmp_path / "app.py").write_text(app)
    status, output = check(tmp_path)
    assert status == 1
    assert message in output and "Traceback" not in output


def test_what_the_runtime_file_asks_for(tmp_path):
    (tmp_path / "input_schema.py").write_text("INPUT_SCHEMA = {}")
    (tmp_path / "app.py").write_text(MODEL.format("return {'x': 1}"))
    (tmp_path / "inferless-runtime-config.yaml").write_text(
        "build:\n  python_packages:\n    - nothing-of-this-name==1\n"
    )
    status, output = check(tmp_path)
    assert status == 0, output
    assert "pip install nothing-of-this-name==1" in output
    assert 'infer({})\n{"x":1}\ndone | 1 output,' in output


def test_model_that_hangs(tmp_path):
    (tmp_path / "input_schema.py").write_text("INPUT_SCHEMA = {}")
    (tmp_path / "app.py").write_text("import time\n" + MODEL.format("time.sleep(600)"))
    status, output = check(tmp_path, EVERSTREAM_INFER_IDLE_TIMEOUT_S="1")
    assert status == 1
    assert "fail | the model did not end within 1 s (EVERSTREAM_INFER_IDLE_TIMEOUT_S)" in output


def test_settings_of_a_service_do_not_matter():
    status, output = check(MODELS / "threaded", MODELS="a=/none b=/none", EVERSTREAM_ENGINE_MODEL="b")
    assert status == 0, output


def test_folder_that_does_not_exist(tmp_path):
    status, output = check(tmp_path / "none")
    assert status == 1
    assert "does not exist" in output and "Traceback" not in output
