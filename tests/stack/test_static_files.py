"""Files whose addresses change with them, so that browsers need not ask for them again."""

import re
from contextlib import closing

import pytest
import requests

from everstream.apis import APIS
from everstream.settings import PROJECT_ROOT
from everstream.web import static_files
from everstream.web.factory import create_app

TIMEOUT_S = 30


def get(stack, address):
    return requests.get(f"{stack.url}/{address}", timeout=TIMEOUT_S)


@pytest.mark.parametrize("page", ["", "docs", "dashboard"])
def test_what_a_page_needs_is_kept(fast, page):
    addresses = set(re.findall(r'(?:href|src)="(static/[^"#]+)', get(fast, page).text))
    assert addresses
    for address in addresses:
        answer = get(fast, address)
        path = re.fullmatch(r"static/v-[0-9a-f]{16}/(.+)", address).group(1)
        assert answer.content == (PROJECT_ROOT / "static" / path).read_bytes()
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"


def test_modules_of_a_version_import_that_version(fast, page):
    """A file that is imported by another address would be asked for again each time."""
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(fast.url)
    page.wait_for_selector("textarea")
    files = [url for url in asked if "/static/" in url]
    assert len(files) > 20
    assert not [url for url in files if f"/static/v-{static_files.VERSION}/" not in url]


def test_nginx_hands_on_what_may_be_kept(proxied):
    address = f"static/v-{static_files.VERSION}/page/main.js"
    answer = get(proxied, address)
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize(("version", "kept"), [("", "no-cache"), ("v-0123456789abcdef/", "no-store")])
def test_other_addresses_are_not_kept(fast, version, kept):
    answer = get(fast, f"static/{version}icon.svg")
    assert answer.content == (PROJECT_ROOT / "static" / "icon.svg").read_bytes()
    assert answer.headers["Cache-Control"] == kept


@pytest.mark.parametrize("path", ["absent.js", "..%2f..%2fapp.py", "page", "page/"])
def test_what_is_no_file_is_not_found(fast, path):
    answer = get(fast, f"static/v-{static_files.VERSION}/{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert answer.headers["Cache-Control"] == "no-store"


def test_any_change_makes_a_new_version(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.js").write_text("a")
    first = static_files._version_of(tmp_path)
    assert first == static_files._version_of(tmp_path)
    (tmp_path / "folder" / "a.js").write_text("b")
    second = static_files._version_of(tmp_path)
    (tmp_path / "folder" / "a.js").rename(tmp_path / "a.js")
    assert len({first, second, static_files._version_of(tmp_path)}) == 3


def test_files_that_change_under_a_process_are_not_kept(fast, monkeypatch):
    """As between the installation of a new version and the restart."""
    app = create_app(APIS, fast.settings)

    def caching():
        with closing(app.test_client().get(f"/static/v-{static_files.VERSION}/icon.svg")) as answer:
            return answer.headers["Cache-Control"]

    assert caching() == "public, max-age=31536000, immutable"
    monkeypatch.setitem(static_files._STAMPS, static_files.FOLDER / "icon.svg", (0, 0))
    assert caching() == "no-store"
