"""The JavaScript client as npm packs it: what is in it, and that a project with strict types can use it."""

import json
import os
import shutil
import subprocess

import pytest

from everstream.settings import PROJECT_ROOT
from harness import client_environments

PACKAGE = PROJECT_ROOT / "static" / "client"
USER = PROJECT_ROOT / "harness" / "client_package"
FILES = {"LICENSE", "README.md", "everstream.d.ts", "everstream.js", "package.json"}
USE = """
import { createClient, start } from 'everstream-client';
const client = createClient({ baseUrl: process.argv[2] });
const answer = client.start({ texts: ['a', 'b'] });
const texts = [];
for await (const text of answer.texts()) texts.push(text);
console.log(JSON.stringify([texts, await answer.result(), typeof start]));
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """The commands `node` and `npm`, at the versions that the clients from npm are tested with."""
    folder = tmp_path_factory.mktemp("node")
    yield client_environments.node_commands(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def packed(node, tmp_path_factory):
    """The tarball. Packed in a copy, because npm puts the license there."""
    root = tmp_path_factory.mktemp("packed")
    shutil.copy(PROJECT_ROOT / "LICENSE", root)
    shutil.copytree(PACKAGE, root / "static" / "client")
    run(node, *node["npm"], "pack", "--silent", "--pack-destination", root, cwd=root / "static" / "client")
    (tarball,) = root.glob("*.tgz")
    return tarball


@pytest.fixture(scope="module")
def project(node, packed, tmp_path_factory):
    """A project that uses the package."""
    folder = tmp_path_factory.mktemp("project") / "project"
    shutil.copytree(USER, folder)
    quietly = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
    run(node, *node["npm"], "ci", *quietly, cwd=folder)
    run(node, *node["npm"], "install", "--no-save", "--offline", *quietly, packed, cwd=folder)
    return folder


def run(node, *command, cwd):
    environ = os.environ | {"PATH": f"{node['folder']}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_packed_files(packed):
    listed = subprocess.run(["tar", "-tzf", packed], check=True, capture_output=True, text=True, timeout=60).stdout
    assert set(listed.split()) == {f"package/{name}" for name in FILES}
    for name, source in (("LICENSE", PROJECT_ROOT), ("everstream.js", PACKAGE)):
        packed_file = subprocess.check_output(["tar", "-xzOf", packed, f"package/{name}"], timeout=60)
        assert packed_file == (source / name).read_bytes()


def test_types_are_complete(node, project):
    """TypeScript, as strict as it can be, with each export; those that must be refused are marked so."""
    run(node, *node["node"], "node_modules/typescript/bin/tsc", "--project", ".", cwd=project)
    script = "import('everstream-client').then((found) => console.log(JSON.stringify(Object.keys(found))))"
    exported = json.loads(run(node, *node["node"], "--eval", script, cwd=project))
    imports = (project / "uses_everything.ts").read_text().partition("from 'everstream-client'")[0]
    assert [name for name in exported if f"  {name},\n" not in imports] == []


def test_answers_in_node(node, project, fast):
    (project / "use.mjs").write_text(USE)
    texts, result, kind = json.loads(run(node, *node["node"], "use.mjs", fast.url, cwd=project))
    assert (texts, result["text"], result["state"], kind) == (["a", "b"], "ab", "done", "function")
