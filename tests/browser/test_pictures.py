"""The tool that photographs and films the page."""

import subprocess
import sys

import pytest
from PIL import Image

from everstream.settings import PROJECT_ROOT
from harness.film import LAST_FRAME_MS, Film


@pytest.mark.parametrize("suffix", ["webp", "png", "gif"])
def test_film_shows_each_change_once(page, tmp_path, suffix):
    page.set_content("<p>one")
    film = Film(page)
    film.take()
    film.take()
    film.caption = "two"
    film.until(lambda: page.evaluate("document.body.append('!'), document.body.textContent.length > 5"))
    film.save(tmp_path / f"film.{suffix}")
    with Image.open(tmp_path / f"film.{suffix}") as image:
        assert (image.n_frames, image.size) == (4, (900, 744))
        image.seek(3)
        image.load()
        assert image.info["duration"] == LAST_FRAME_MS


def pictures(folder, *arguments):
    """The width and the number of frames of each picture that the tool writes, by name."""
    command = [sys.executable, "-m", "tools.screenshots", folder, *arguments]
    subprocess.run(command, cwd=PROJECT_ROOT, check=True, timeout=240)
    found = {}
    for path in folder.iterdir():
        with Image.open(path) as image:
            found[path.name] = (image.width, getattr(image, "n_frames", 1))
    return found


def test_scenes_of_a_running_server(chromium, fast, tmp_path):
    expected = {f"docs-{width}-{scheme}.png": (width, 1) for width in (390, 768, 1440) for scheme in ("light", "dark")}
    assert pictures(tmp_path, "--url", fast.url, "--scenes", "docs,engine-killed") == expected


def test_film_of_a_killed_engine(chromium, tmp_path):
    ((name, (width, frames)),) = pictures(tmp_path, "--scenes", "engine-killed").items()
    assert (name, width) == ("engine-killed.webp", 768)
    assert frames > 5
