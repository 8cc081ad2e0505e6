"""What a model folder's runtime files ask of the machine: one line for each thing that is missing here."""

import importlib.metadata
import sys

import pytest

from everstream.contract import runtime_config
from everstream.contract.python_packages import findings

PYTEST = importlib.metadata.version("pytest")
RUNTIME = runtime_config.RUNTIME_FILE
DPKG = r"printf 'installed\tffmpeg\t\ninstalled\tlibgl1\tlibgl1-mesa-glx (= 1.7), libopengl\nconfig-files\tgone\t\n'"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Makes a program that is found before all others; without one, no program is found."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))

    def make(name, script):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)

    return make


def checked(folder, runtime="", deployment=""):
    if runtime:
        (folder / RUNTIME).write_text(runtime)
    if deployment:
        (folder / runtime_config.DEPLOYMENT_FILE).write_text(deployment)
    return runtime_config.check(folder)


def test_folder_without_files(folder):
    assert checked(folder) == []


@pytest.mark.parametrize(
    "text", ["# nothing", "build:", "build:\n  system_packages:\n  python_packages:\n    - pytest"]
)
def test_nothing_is_missing(folder, text):
    assert checked(folder, text) == []


@pytest.mark.parametrize(
    "requirement",
    [
        "pytest",
        "PyTest",
        f"pytest=={PYTEST}",
        "pytest[dev]>=1,<100000",
        "pytest  # the newest",
        "# pytest==1",
        "",
        "absent; python_version < '3'",
        "pytest @ https://example.invalid/pytest.tar.gz",
        "git+https://example.invalid/a/pytest-fork@main#egg=pytest",
        f"https://example.invalid/wheels/pytest-{PYTEST}-py3-none-any.whl?download=true",
        f"https://example.invalid/py%74est-{PYTEST}-py3-none-any.whl",
        "inferless==0.2.15",
    ],
)
def test_satisfied_requirement(requirement):
    assert list(findings([requirement])) == []


@pytest.mark.parametrize(
    ("requirement", "quoted"),
    [
        ("absent", "absent"),
        ("absent==1.0  # why", "absent==1.0"),
        ("absent>=1; python_version > '3'", "'absent>=1; python_version > '\"'\"'3'\"'\"''"),
        ("absent[extra]", "'absent[extra]'"),
        ("absent @ https://example.invalid/a.tar.gz", "'absent @ https://example.invalid/a.tar.gz'"),
        ("git+https://example.invalid/a/absent.git@main", "git+https://example.invalid/a/absent.git@main"),
        ("git+https://example.invalid/a@b#egg=absent", "'git+https://example.invalid/a@b#egg=absent'"),
        (
            "https://example.invalid/absent-1.0%2Bcu12-py3-none-any.whl",
            "https://example.invalid/absent-1.0%2Bcu12-py3-none-any.whl",
        ),
    ],
)
def test_missing_requirement(requirement, quoted):
    assert list(findings([requirement, requirement, "pytest"])) == [
        f"Python packages are missing: pip install {quoted}"
    ]


def test_other_versions():
    wheel = "https://example.invalid/pytest-1.0-py3-none-any.whl"
    assert list(findings(["pytest==1", wheel])) == [
        f"other versions are installed (pytest {PYTEST}, pytest {PYTEST}): pip install pytest==1 {wheel}"
    ]


@pytest.mark.parametrize("text", ["-r other.txt", "--extra-index-url https://x", "a b", "https://[", "a==1==2"])
def test_what_is_no_requirement(text):
    assert list(findings([text])) == [f"these are not Python packages, so they can't be checked: {text}"]


def test_package_installed_from_its_repository(tmp_path, monkeypatch):
    """pip records where it got a package, so a URL that doesn't name its package is recognised."""
    info = tmp_path / "forked-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: forked\nVersion: 3.1\n")
    (info / "direct_url.json").write_text('{"url": "https://example.invalid/A/thing.git", "vcs_info": {"vcs": "git"}}')
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert list(findings(["git+https://example.invalid/a/thing@refs/pull/391/head"])) == []
    assert len(list(findings(["git+https://example.invalid/a/things"]))) == 1


SYSTEM = "build:\n  system_packages: [ffmpeg, libgl1-mesa-glx, 'libopengl:amd64', 'ffmpeg=7:5.1', gone, libssl-dev]"


def test_system_packages(folder, program):
    program("dpkg-query", DPKG)
    assert checked(folder, SYSTEM) == [f"{RUNTIME}: system packages are missing: apt-get install gone libssl-dev"]


@pytest.mark.parametrize("script", [None, "exit 2"])
def test_system_packages_without_dpkg(folder, program, script):
    if script:
        program("dpkg-query", script)
    (finding,) = checked(folder, SYSTEM)
    assert finding.startswith(
        f"{RUNTIME}: system packages can't be checked without dpkg-query: ffmpeg, libgl1-mesa-glx,"
    )


@pytest.mark.parametrize(
    ("wanted", "found", "finding"),
    [
        ("'12.4.1'", "CUDA Version: 12.4", None),
        ("12.4", "CUDA Version: 13.0", None),
        ("'12'", "CUDA Version: 12.2", None),
        ("'13.1.0'", "KMD Version: 610.1  CUDA UMD Version: 13.4", None),
        ("'12.4.1'", "CUDA Version: 12.2", "the NVIDIA driver supports only 12.2: install a newer driver"),
        ("'13.0'", "CUDA Version: 12.10", "the NVIDIA driver supports only 12.10: install a newer driver"),
        ("'12.4.1'", None, "nvidia-smi finds no GPU here"),
        ("'12.4.1'", "No devices were found", "nvidia-smi finds no GPU here"),
    ],
)
def test_cuda(folder, program, wanted, found, finding):
    if found:
        program("nvidia-smi", f"echo '| {found} |'")
    asked = wanted.strip("'")
    expected = [f"{RUNTIME}: CUDA {asked} is asked for, but {finding}"] if finding else []
    assert checked(folder, f"build:\n  cuda_version: {wanted}") == expected


def test_no_cuda_is_asked_for(folder, program):
    assert checked(folder, "build:\n  python_packages: [pytest]\n  cuda_version:\n") == []


def test_commands_are_named_and_not_run(folder):
    marker = folder / "marker"
    text = f"build:\n  run:\n    - touch {marker}\n    - |\n      echo a\n      echo b\n"
    found = f"Inferless would run commands that are not run here: touch {marker}; echo a echo b"
    assert checked(folder, text) == [f"{RUNTIME}: {found}"]
    assert not marker.exists()


DEPLOYMENT = """
version: 1.0.0
name: example
configuration:
  custom_runtime_id: ''
  custom_volume_id: 1234
  custom_volume_name: weights
  gpu_type: A100
env:
  EXAMPLE_UNSET: PROD
  PATH: /bin
secrets:
  - 65723205-ce21
optional:
  runtime_file_name: other.yaml
"""


def test_deployment_file(folder):
    (folder / "other.yaml").write_text("build:\n  python_packages: [absent]")
    assert checked(folder, "build:\n  run: [unused]", DEPLOYMENT) == [
        "inferless.yaml: env sets variables that are not set here: EXAMPLE_UNSET",
        "inferless.yaml: secrets are kept by Inferless; set the variables that they hold here",
        "inferless.yaml: the custom volume weights is kept by Inferless, so it can't be checked here",
        "other.yaml: Python packages are missing: pip install absent",
    ]


@pytest.mark.parametrize("name", ["../secret.yaml", "/etc/passwd", "a/b.yaml", "[1]"])
def test_runtime_file_stays_in_the_folder(folder, name):
    found = checked(folder, "build: {run: [a]}", f"optional: {{runtime_file_name: {name}}}")
    assert found[0] == "inferless.yaml: optional.runtime_file_name must be the name of a file in the same folder"
    assert found[1].startswith(RUNTIME)


def test_runtime_file_that_does_not_exist(folder):
    (found,) = checked(folder, deployment="optional: {runtime_file_name: other.yaml}")
    assert found == "inferless.yaml: optional.runtime_file_name is other.yaml, which does not exist"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("build: [", "is not valid YAML: "),
        ("[" * 20_000, "is not valid YAML: maximum recursion depth exceeded"),
        ("a: 2024-99-99", "is not valid YAML: month must be in 1..12"),
        ("a: \xff\xfe", "is not valid YAML: "),
        ("a: !!python/object:os.system x", "is not valid YAML: could not determine a constructor"),
        ("- a", "must be a mapping, not list"),
        ("build: torch", "build must be a mapping, not str"),
        ("build: {python_packages: {torch: 1}}", "python_packages must be a list of strings"),
        ("build: {python_packages: [1.0]}", "python_packages must be a list of strings"),
        ("build: {cuda_version: latest}", "cuda_version must be a version like 12.4.1, not 'latest'"),
        ("#" * 65_537, "has more than 65536 bytes"),
    ],
)
def test_bad_file_is_one_finding(folder, text, reason):
    (folder / RUNTIME).write_bytes(text.encode("latin-1"))
    (finding,) = runtime_config.check(folder)
    assert finding.startswith(f"{RUNTIME}: {reason}")
    assert "\n" not in finding


def test_unreadable_file_is_one_finding(folder):
    (folder / RUNTIME).mkdir()
    assert runtime_config.check(folder) == [f"{RUNTIME}: can't be read: Is a directory"]


def test_other_findings_of_a_bad_file_are_kept(folder):
    assert len(checked(folder, "build: {python_packages: [absent], run: 1}")) == 2
