"""The page's third-party modules are those of the manifest, and each comes with its licence."""

import hashlib
import json

import pytest

from everstream.settings import PROJECT_ROOT

VENDOR = PROJECT_ROOT / "static" / "vendor"
MANIFEST = json.loads((VENDOR / "manifest.json").read_text())


def licence_files(entry):
    return [entry["license_file"], *(bundled["license_file"] for bundled in entry["bundles"])]


def test_every_file_is_in_the_manifest():
    listed = {entry["file"] for entry in MANIFEST} | {name for entry in MANIFEST for name in licence_files(entry)}
    assert {path.name for path in VENDOR.iterdir()} == listed | {"manifest.json"}


@pytest.mark.parametrize("entry", MANIFEST, ids=[entry["name"] for entry in MANIFEST])
def test_module_is_unchanged_and_licensed(entry):
    assert hashlib.sha256((VENDOR / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
    assert entry["version"] and entry["license"]
    for name in licence_files(entry):
        assert "copyright" in (VENDOR / name).read_text().lower()
