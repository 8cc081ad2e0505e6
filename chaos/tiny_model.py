"""A tiny chat model of random weights, made into a folder that vLLM loads: so fast that the faults set the pace.

In: the demo model's tokenizer and chat template. Out: a folder beside it in the user's cache directory, built once. Its
tokens are drawn from the whole vocabulary, so that halves of characters and odd white space come all the time.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from everstream import demo_model
from everstream.settings import Settings

VERSION = 1
"""Part of the folder's name: a change in how the folder is built makes a new one."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
WEIGHTS_SEED = 20


def build(settings: Settings) -> Path:
    """Build the folder unless it is there."""
    demo = demo_model.build(settings)
    return build_once(settings.cache_path / f"tiny-random-llama-v{VERSION}", partial(_make, demo))


def build_once(target: Path, make: Callable[[Path], None]) -> Path:
    """Have `make` fill a folder unless it is there. It appears by one rename: a killed build leaves no half of it."""
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
    # Imported here, as they take seconds and the folder is there already at every start but the first.
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
