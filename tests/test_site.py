"""The built book, as a browser shows it: `python -m notebooks` first, then `python -m pytest tests/test_site.py -m slow`.

The first tests read the pages; the others walk them in headless Chromium, and are skipped where there is none.
"""

from __future__ import annotations

import shutil
import warnings
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

HTML = Path(__file__).parent.parent / "notebooks/_build/html"
PAGES = sorted(path for path in HTML.glob("*.html"))
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not PAGES, reason="the book is not built: `python -m notebooks`")]


class Page(HTMLParser):
    """Links, identifiers, pictures and formulas of a page, and what it loads."""

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.links, self.names, self.loaded, self.without_text = path, [], set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.names.add(found.get("id"))
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in ("script", "img", "iframe") and "src" in found:
            self.loaded.append(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "preload", "icon"):
            self.loaded.append(found["href"])
        if tag == "img" and not (found.get("alt") or "").strip(" ./_").removesuffix(".png"):
            self.without_text.append(found["src"])


@pytest.fixture(scope="module")
def pages() -> dict[Path, Page]:
    return {path: Page(path) for path in PAGES}


def test_no_link_is_dead(pages):
    dead = []
    for path, page in pages.items():
        for link in page.links:
            if link.startswith(("http:", "https:", "mailto:")):
                continue
            target, _, name = unquote(link).partition("#")
            there = (path.parent / target).resolve() if target else path
            if not there.exists() or (name and there in pages and name not in pages[there].names):
                dead.append((path.name, link))
    assert not dead


def test_nothing_is_loaded_from_elsewhere(pages):
    loaded = {(path.name, source) for path, page in pages.items() for source in page.loaded}
    assert not [(name, source) for name, source in loaded if source.startswith(("http:", "https:", "//"))]
    assert not [(name, s) for name, s in loaded if not (HTML / unquote(s.partition("?")[0])).exists()]
    for sheet in HTML.rglob("*.css"):
        assert "url(http" not in sheet.read_text(encoding="utf-8") and "@import" not in sheet.read_text(
            encoding="utf-8"
        )


def test_pictures_have_texts(pages):
    assert not {path.name: page.without_text for path, page in pages.items() if page.without_text}


@pytest.fixture(scope="module")
def browser():
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    webdriver = pytest.importorskip("selenium.webdriver")
    if not (chromium and driver):
        pytest.skip("no Chromium")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        started.set_script_timeout(20)
        yield started
        started.quit()


def width(browser, pixels: int) -> None:
    metrics = {"width": pixels, "height": 800, "deviceScaleFactor": 1, "mobile": pixels < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def requests(browser) -> list[str]:
    """What the browser has asked for since the last call."""
    import json

    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def open_page(browser, url: str) -> None:
    browser.get(url)
    # A page without formulas has no MathJax.
    browser.execute_async_script("(window.MathJax?.startup?.promise ?? Promise.resolve()).then(arguments[0])")


@pytest.mark.parametrize("pixels", [1280, 360])
def test_every_page_loads_without_errors_or_network_and_fits(browser, pixels):
    width(browser, pixels)
    for path in PAGES:
        browser.get_log("browser")
        open_page(browser, path.as_uri())
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == [], path.name
        assert [url for url in requests(browser) if not url.startswith(("file:", "data:", "chrome"))] == [], path.name
        assert browser.execute_script("return document.documentElement.scrollWidth") <= pixels, path.name


RULES = {"runOnly": ["color-contrast", "image-alt", "link-name", "button-name"]}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast_holds(browser, theme):
    axe = pytest.importorskip("axe_selenium_python").Axe(browser)
    width(browser, 1280)
    for name in ("index", "start_here", "which_estimator", "measured", "reference"):  # each kind of page
        open_page(browser, (HTML / f"{name}.html").as_uri())
        browser.execute_script("document.body.dataset.theme = arguments[0]", theme)
        axe.inject()
        found = axe.run(options=RULES)
        assert any(rule["id"] == "color-contrast" for rule in found["passes"]), name
        assert not {(rule["id"], node["html"][:100]) for rule in found["violations"] for node in rule["nodes"]}, name
    browser.execute_script("for (const p of document.querySelectorAll('article p')) p.style.color = '#777'")
    assert axe.run(options=RULES)["violations"]  # text that is too faint is seen


def test_formulas_are_drawn(browser):
    width(browser, 1280)
    for name in ("theory", "any_distribution", "jumps"):
        open_page(browser, (HTML / f"{name}.html").as_uri())
        drawn, wrong = browser.execute_script(
            "return [document.querySelectorAll('mjx-container svg').length, document.querySelectorAll('[data-mjx-error]').length]"
        )
        assert drawn > 3 and wrong == 0, name


def test_search_finds(browser):
    width(browser, 1280)
    browser.get(f"{(HTML / 'search.html').as_uri()}?q=leave-one-out")
    titles = "return [...document.querySelectorAll('#search-results li a')].map(a => a.textContent)"
    for _ in range(100):  # results come one by one
        found = browser.execute_script(titles)
        if any("RLOO" in title for title in found):
            return
        browser.execute_async_script("setTimeout(arguments[0], 100)")
    raise AssertionError(found)


def test_tables_sort(browser):
    width(browser, 1280)
    browser.get((HTML / "measured.html").as_uri())
    first = """
        const table = document.querySelector('table.sortable');
        const head = [...table.tHead.querySelectorAll('th')].at(-1);
        head.click();
        return [...table.tBodies[0].rows].map(row => parseFloat(row.cells[row.cells.length - 1].textContent));
    """
    seconds = browser.execute_script(first)
    assert len(seconds) > 5 and seconds == sorted(seconds)
