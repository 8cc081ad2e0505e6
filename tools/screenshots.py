"""Writes pictures of the page: `python -m tools.screenshots [--url URL] [--scenes NAME,…] [FOLDER]`.

Each scene becomes a PNG for each width and colour scheme, and each film an animated image. Starts all parts with a test
model, or uses a server that runs already; films need parts to kill, so there are none then.
"""

import argparse
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from everstream.settings import PROJECT_ROOT
from harness.browsers import fresh_page, obstacle, running_browsers
from harness.film import Film
from harness.stack import MODELS, running_stack, wait_for

VIEWPORTS = {390: 844, 768: 1024, 1440: 900}
"""Heights by width: a phone, a tablet, a laptop."""
FILM_VIEWPORT = {"width": 768, "height": 640}
PROMPT = "Why is the sky blue?"
MIDDLE_CHARS = 240
"""By then an answer is well under way."""


def ask(page, url):
    welcome(page, url)
    page.get_by_label("Message").fill(PROMPT)
    page.get_by_role("button", name="Send").click()
    answer(page).wait_for()


def answer(page):
    return page.get_by_role("article", name="Answer").last


def is_under_way(page):
    return len(answer(page).inner_text()) >= MIDDLE_CHARS


def is_finished(page):
    return answer(page).get_attribute("aria-busy") == "false"


def phase(page):
    return page.locator("#state").get_attribute("data-phase")


def welcome(page, url):
    page.goto(url)
    wait_for(lambda: phase(page) == "idle")


def streaming(page, url):
    ask(page, url)
    wait_for(lambda: is_under_way(page), timeout_s=300)


def done(page, url):
    ask(page, url)
    wait_for(lambda: is_finished(page), timeout_s=300)


def health(page, url):
    streaming(page, url)
    page.get_by_role("button", name="Stream health").click()


def conversations(page, url):
    done(page, url)
    page.get_by_role("button", name="Conversations").click()


def settings(page, url):
    done(page, url)
    page.get_by_role("button", name="Settings").click()


def docs(page, url):
    page.goto(f"{url}/docs")
    page.locator("summary").first.click()


SCENES = {scene.__name__: scene for scene in (welcome, streaming, done, health, conversations, settings, docs)}
"""Each brings a page into a state to be photographed."""


def engine_killed(film, stack):
    """An engine is killed in mid-answer, and another one goes on."""
    page = film.page
    ask(page, stack.url)
    film.until(lambda: is_under_way(page))
    name = next(engine["name"] for engine in stack.readiness()["engines"] if engine["running"])
    engine = next(each for each in stack.engines if each.name == name)
    film.caption = f"kill -9 {engine.pid}   # the engine"
    engine.kill()
    film.until(lambda: is_finished(page))


def gunicorn_killed(film, stack):
    """The web part is killed in mid-answer, and started again."""
    page = film.page
    ask(page, stack.url)
    film.until(lambda: is_under_way(page))
    film.caption = f"kill -9 {stack.web.pid}   # gunicorn"
    stack.web.stop()
    film.until(lambda: phase(page) == "reconnecting")
    stack.start_web()
    film.caption = "gunicorn is back"
    film.until(lambda: is_finished(page))


FILMS = {"engine-killed": engine_killed, "gunicorn-killed": gunicorn_killed}


def photograph(browser, url, name, folder):
    for width, height in VIEWPORTS.items():
        for scheme in ("light", "dark"):
            viewport = {"width": width, "height": height}
            with fresh_page(browser, viewport=viewport, color_scheme=scheme) as page:
                SCENES[name](page, url)
                page.screenshot(path=folder / f"{name}-{width}-{scheme}.png")


def shoot(browser, name, folder):
    """Each film has parts of its own to kill."""
    with stack_for_pictures() as stack, fresh_page(browser, viewport=FILM_VIEWPORT) as page:
        film = Film(page)
        FILMS[name](film, stack)
        film.save(folder / f"{name}.webp")


@contextmanager
def stack_for_pictures():
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder), app_dir=MODELS / "narrator") as stack:
        stack.start_engine()
        wait_for(lambda: len(stack.readiness()["engines"]) == len(stack.engines), what="the second engine")
        yield stack


@contextmanager
def served(url):
    """The URL of the given server, or of one of our own."""
    if url:
        yield url
    else:
        with stack_for_pictures() as stack:
            yield stack.url


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=PROJECT_ROOT / "test-artifacts" / "screenshots")
    parser.add_argument("--url", help="of a server that runs already")
    parser.add_argument("--scenes", default=",".join([*SCENES, *FILMS]), help="which of %(default)s")
    given = parser.parse_args()
    names = given.scenes.split(",")
    if reason := obstacle("chromium"):
        sys.exit(reason)
    if unknown := set(names) - SCENES.keys() - FILMS.keys():
        sys.exit(f"no such scene: {', '.join(unknown)}")
    given.folder.mkdir(parents=True, exist_ok=True)
    scenes = [name for name in names if name in SCENES]
    films = [name for name in names if name in FILMS and not given.url]
    with running_browsers() as browsers, browsers.launched("chromium") as browser:
        if scenes:
            with served(given.url) as url:
                for name in scenes:
                    photograph(browser, url, name, given.folder)
        for name in films:
            shoot(browser, name, given.folder)


if __name__ == "__main__":
    main()
