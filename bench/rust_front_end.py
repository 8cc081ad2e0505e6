"""Finds the binary of vLLM's Rust front end, downloaded once into the user's cache directory.

vLLM's CPU build lacks it; the `vllm` wheel of the same version has it.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import vllm

from everstream.settings import Settings

MEMBER = "vllm/vllm-rs"


def find(settings: Settings) -> Path | None:
    """Returns its path, or prints why it is unavailable and returns None."""
    version = vllm.__version__.partition("+")[0]
    shipped = Path(vllm.__file__).parent / "vllm-rs"
    cached = settings.cache_path / f"vllm-rs-{version}"
    found = next((path for path in (shipped, cached) if path.is_file()), None)
    return found or _fetch(version, cached)


def _fetch(version: str, target: Path) -> Path | None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        print(f"downloading vLLM {version}'s Rust front end (a 320 MB wheel)", file=sys.stderr)
        if subprocess.run([*command, "-d", work, f"vllm=={version}"], check=False).returncode != 0:
            print("skipping the Rust front end: pip could not download the wheel", file=sys.stderr)
            return None
        with zipfile.ZipFile(next(Path(work).glob("*.whl"))) as wheel:
            unpacked = Path(wheel.extract(MEMBER, work))
        unpacked.chmod(0o755)
        return unpacked.rename(target)
