"""The JavaScript client's package says the same as the project."""

import json

from everstream import __version__
from everstream.settings import PROJECT_ROOT

PACKAGE = PROJECT_ROOT / "static" / "client"


def test_package_has_the_projects_version_and_no_dependencies():
    package = json.loads((PACKAGE / "package.json").read_text())
    assert (package["name"], package["version"], package["license"]) == ("everstream-client", __version__, "Apache-2.0")
    assert not [field for field in package if "ependencies" in field]


def test_module_imports_nothing():
    lines = (PACKAGE / "everstream.js").read_text().splitlines()
    assert not [line for line in lines if line.startswith(("import ", "export *", "export {"))]
