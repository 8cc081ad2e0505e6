"""Fetches the page's third-party modules: `python tools/vendor.py`.

Downloads the pinned packages with `npm pack`, checks each archive's sha512, and writes their modules, their licences
and a manifest into static/vendor/. To upgrade one, set its version here, and its integrity from
`npm view NAME@VERSION dist.integrity`.
"""

import base64
import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

VENDOR = Path(__file__).parent.parent / "static" / "vendor"
LICENCE_NAMES = ("LICENSE", "LICENSE.txt", "LICENSE-MIT.txt")


class Package(NamedTuple):
    name: str
    version: str
    license: str
    integrity: str
    source: str
    """The module's path in the package."""
    file: str
    """Its name here. Always .js: not every server knows .mjs as JavaScript."""
    bundles: tuple[str, ...] = ()
    """Packages whose code the module contains, and whose licences come along."""


class Bundled(NamedTuple):
    name: str
    version: str
    license: str
    integrity: str


PACKAGES = (
    Package(
        "markdown-it",
        "15.0.3",
        "MIT",
        "sha512-+Az7Ojz3iRGu8KYMvJ6xVhvrxP3eE+vEtJX75Ow88XBpcQNV/0lGX5ZynIIBftREo4DC2jsveAMDaeltmm8QvQ==",
        "dist/browser/markdown-it.esm.min.mjs",
        "markdown-it.js",
        ("linkify-it", "mdurl", "uc.micro", "entities", "punycode.js"),
    ),
    Package(
        "dompurify",
        "3.5.0",
        "(MPL-2.0 OR Apache-2.0)",
        "sha512-LYC0ZkE8P1V42JsRYTwMdme/2ET8SpOc5AA2eOFjP/IadvRd2fwiT4TVz5vkfy0XUx12aS2UaRkTnfVPNOv9vw==",
        "dist/purify.es.mjs",
        "dompurify.js",
    ),
    Package(
        "@highlightjs/cdn-assets",
        "11.12.0",
        "BSD-3-Clause",
        "sha512-KvOKXODaiFmId9xaq3xc5xCL66wVLUuOngDbO9B/kewbFTqdGbn2nJxNhN3H5R1cgDTVj6R8vH0zgiNDEGjpDw==",
        "es/highlight.min.js",
        "highlight.js",
    ),
    Package(
        "katex",
        "0.19.1",
        "MIT",
        "sha512-jG8uKntjSEcm2EpQOh0XturpPuuC9r3Sq5HLHdsFdWZT27E672SF19QEi+of0/YeOy15lDgRhKvr5614uRrEfA==",
        "dist/katex.mjs",
        "katex.js",
    ),
)
BUNDLED = (
    Bundled(
        "linkify-it",
        "6.1.0",
        "MIT",
        "sha512-wJ/TwpSDTLepCrQoYWYIExIKg5Zchex2Nn5yk2mFnB+6PtdkHtyLx742md9csRjjOnGkKIS/RrbY7l8D6gT9Vw==",
    ),
    Bundled(
        "mdurl",
        "2.1.0",
        "MIT",
        "sha512-1+HBaOx0zi/dQWht8rNv9MYf9qqpqL/kxI0hXImU6Y547zM6Sni8BQibt7ifgMcYtQg41ao3Ivd6cnSM86inpg==",
    ),
    Bundled(
        "uc.micro",
        "3.0.0",
        "MIT",
        "sha512-U3PppEkleoTnIfi8BozMx3yju3qc/L6SwqWo2Sw+54PX+PX0q9I+r1Um5HCmqD7n9VDX5/v3vQH/AjA6deDdtw==",
    ),
    Bundled(
        "entities",
        "8.1.0",
        "BSD-2-Clause",
        "sha512-kxL7msIffSuh9aaFAMD7rxAIuTRMAHMeBtgHW2yUdWw732ZNh4MehkF2gdjvtdmikkaIP9bFDDJOPlsvm7avrA==",
    ),
    Bundled(
        "punycode.js",
        "2.3.1",
        "MIT",
        "sha512-uxFIHU0YlHYhDQtV4R9J6a52SLx28BCjT+4ieh7IGbgwVJWO+km431c4yRlREUAsAmt/uMjQUyQHNEPf0M39CA==",
    ),
)


def main() -> None:
    VENDOR.mkdir(exist_ok=True)
    for old in VENDOR.iterdir():
        old.unlink()
    with tempfile.TemporaryDirectory() as folder:
        bundled = {package.name: vendor_licence(package, Path(folder)) for package in BUNDLED}
        entries = [vendor(package, Path(folder), bundled) for package in PACKAGES]
    (VENDOR / "manifest.json").write_text(json.dumps(entries, indent=2) + "\n")


def vendor(package: Package, folder: Path, bundled: dict[str, dict[str, str]]) -> dict[str, object]:
    """Writes the package's module and licence. Returns its entry in the manifest."""
    with tarfile.open(download(package, folder)) as archive:
        content = member(archive, package.source)
        (VENDOR / package.file).write_bytes(content)
        licence = write_licence(package, archive)
    return {
        "name": package.name,
        "version": package.version,
        "license": package.license,
        "source": package.source,
        "file": package.file,
        "sha256": hashlib.sha256(content).hexdigest(),
        "license_file": licence,
        "bundles": [bundled[name] for name in package.bundles],
    }


def vendor_licence(package: Bundled, folder: Path) -> dict[str, str]:
    with tarfile.open(download(package, folder)) as archive:
        licence = write_licence(package, archive)
    return {"name": package.name, "version": package.version, "license": package.license, "license_file": licence}


def download(package: Package | Bundled, folder: Path) -> Path:
    """The package's archive. Raises RuntimeError if it isn't the pinned one."""
    spec = f"{package.name}@{package.version}"
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), spec]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    found = "sha512-" + base64.b64encode(hashlib.sha512((folder / name).read_bytes()).digest()).decode()
    if found != package.integrity:
        raise RuntimeError(f"{spec} has the integrity {found}, not {package.integrity}")
    return folder / name


def write_licence(package: Package | Bundled, archive: tarfile.TarFile) -> str:
    """Returns its file's name."""
    names = [name.removeprefix("package/") for name in archive.getnames()]
    found = next(name for name in LICENCE_NAMES if name in names)
    target = f"LICENSE.{package.name.replace('@', '').replace('/', '-')}.txt"
    (VENDOR / target).write_bytes(member(archive, found))
    return target


def member(archive: tarfile.TarFile, path: str) -> bytes:
    found = archive.extractfile(f"package/{path}")
    if found is None:
        raise RuntimeError(f"{path} is not a file")
    return found.read()


if __name__ == "__main__":
    main()
