"""Accessibility checks of a page, by axe-core. `axe_playwright_python` is used only for the script that it carries."""

import importlib.resources
from typing import NamedTuple

# Only violations: what axe calls incomplete takes a person to judge. Preloading, it would look for imported styles in
# wrong places.
RUN = """async () => {
    const { violations } = await axe.run(document, { resultTypes: ['violations'], preload: false });
    return violations.flatMap(({ id, impact, nodes }) =>
        nodes.map(({ html, failureSummary }) => [id, impact, html, failureSummary]));
}"""


class Violation(NamedTuple):
    rule: str
    impact: str
    html: str
    summary: str


def violations(page):
    """What the page, as it is now, does wrong: a `Violation` for each element and rule.

    A strict security policy refuses a script element, but not what the browser is told to evaluate.
    """
    page.evaluate((importlib.resources.files("axe_playwright_python") / "axe.min.js").read_text())
    return [Violation(*row) for row in page.evaluate(RUN)]
