"""Builds a tiny chat model with random weights for vLLM, fast enough that the faults dominate the run time.

In: the demo model's tokenizer and chat template. Out: a folder next to it in the user's cache directory, built once.
Its tokens are drawn from the whole vocabulary, so that partial characters and odd white space are common.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from everstream.llm import demo_model
from everstream.settings import Settings

VERSION = 1
"""Part of the folder's name. Increase it when the build changes."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
WEIGHTS_SEED = 20


def build(settings: Settings) -> Path:
    """Build the folder if it is missing."""
    demo = demo_model.build(settings)
    return build_once(settings.cache_path / f"tiny-random-llama-v{VERSION}", partial(_make, demo))


def build_once(target: Path, make: Callable[[Path], None]) -> Path:
    """Have `make` fill the folder if it is missing. It appears by one rename, so a killed build leaves nothing."""
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with tempfile.TemporaryDirectory(prefix=f"{target.name}.building-", dir=target.parent) as work:
            if not target.is_dir():
                make(Path(work) / "model")
                (Path(work) / "model").rename(target)
    return target


def _make(demo: Path, folder: Path) -> None:
    # Imported here, as they take seconds and only the first start needs them.
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM

    vocabulary = AutoConfig.from_pretrained(demo)
    torch.manual_seed(WEIGHTS_SEED)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=8192,
        vocab_size=vocabulary.vocab_size,
        bos_token_id=vocabulary.bos_token_id,
        eos_token_id=vocabulary.eos_token_id,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copy(demo / name, folder)
