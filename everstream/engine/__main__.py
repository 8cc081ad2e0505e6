"""`python -m everstream.engine`. Re-executes `main` as the main module, which vLLM's processes import."""

import os
import sys

if __name__ == "__main__":
    os.execv(sys.executable, [sys.executable, "-m", "everstream.engine.main"])  # noqa: S606
