"""The built site, as a reader with a browser sees it; build it by `make docs`."""

import functools
import importlib
import pkgutil
import re
import threading
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from textwrap import dedent
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest

import sklearn_dialpref

ROOT = Path(__file__).parents[1]
SITE = ROOT / "build" / "docs" / "html"
ID = re.compile(r'\bid="([^"]+)"')
LINK = re.compile(r'\b(?:href|src)="([^"]+)"')
WIDTHS = [1280, 390]
THEMES = ["light", "dark"]

pytestmark = [
    pytest.mark.docs,
    pytest.mark.skipif(not SITE.exists(), reason=f"{SITE} is not there: make docs"),
]

# What is wrong with a page at its present width and in its present theme: it scrolls sideways,
# something sticks out of its column and of boxes that scroll, a title is cut, or it is empty.
LOOK = """() => {
  const root = document.documentElement, found = [];
  const tell = (what, e) => found.push(`${what}: ${e.outerHTML.slice(0, 100)}`);
  if (root.scrollWidth > root.clientWidth) tell(`${root.scrollWidth} px wide`, root);
  const main = document.querySelector("article.bd-article, main");
  const right = Math.min(main.getBoundingClientRect().right, root.clientWidth) + 1;
  const scrolls = (e) => e !== main &&
    (/auto|scroll/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  for (const e of main.querySelectorAll("*")) {
    const box = e.getBoundingClientRect();
    if (box.width > 1 && (box.right > right || box.left < 0) && !scrolls(e)) tell("sticks out", e);
  }
  for (const e of document.querySelectorAll("h1, h2, h3, dt.sig"))
    if (e.clientWidth && e.scrollWidth > e.clientWidth + 1) tell("cut", e);
  if (!main.innerText.trim()) tell("empty", main);
  return found;
}"""


@pytest.fixture(scope="module")
def pages():
    """Names of all pages."""
    names = (path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
    return sorted(name for name in names if not name.startswith("_"))


@pytest.fixture(scope="module")
def address():
    """Where the site is served."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def window(browser):
    """A page of the browser, and the list of what went wrong in it."""
    page = browser.new_page(viewport={"width": WIDTHS[0], "height": 900})
    wrong = []
    page.on("console", lambda said: said.type in ("error", "warning") and wrong.append(said.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
    page.on("response", lambda got: got.status >= 400 and wrong.append(f"{got.status}: {got.url}"))
    page.on("request", lambda request: is_elsewhere(request.url) and wrong.append(request.url))
    yield page, wrong
    page.close()


def is_elsewhere(url):
    parts = urlsplit(url)
    return parts.scheme not in ("data", "blob", "file") and parts.hostname != "127.0.0.1"


def settle(page):
    """Fonts and formulas have arrived."""
    page.evaluate(
        "async () => { await document.fonts.ready; await window.MathJax?.startup?.promise }"
    )


def set_theme(page, theme):
    page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)


def look(page):
    """What is wrong with the page at each width, in each theme."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for theme in THEMES:
            set_theme(page, theme)
            yield from (f"{width} px, {theme}: {what}" for what in page.evaluate(LOOK))


def test_pages_look_right(window, address, pages):
    page, wrong = window
    found = []
    for name in pages:
        wrong.clear()
        page.set_viewport_size({"width": WIDTHS[0], "height": 900})
        page.goto(f"{address}/{name}", wait_until="load")
        settle(page)
        found += [f"{name}: {what}" for what in [*look(page), *wrong]]
    assert not found, "\n".join(found)


def test_links_lead_somewhere(pages):
    anchors = {name: set(ID.findall((SITE / name).read_text())) for name in pages}
    broken = [
        f"{name}: {link}"
        for name in pages
        for link in internal_links(name)
        if not leads(urljoin(name, link), anchors)
    ]
    assert not broken, "\n".join(broken)


def internal_links(name):
    """Distinct addresses of links, pictures, scripts and styles within the site."""
    for link in sorted(set(LINK.findall((SITE / name).read_text()))):
        link = unescape(link)
        if not urlsplit(link).scheme and not link.startswith("//"):
            yield link if urldefrag(link).url else f"{name.rsplit('/')[-1]}{link}"


def leads(link, anchors):
    url, anchor = urldefrag(link)
    path = unquote(urlsplit(url).path)
    if path in anchors:
        return not anchor or unquote(anchor) in anchors[path]
    return (SITE / path).is_file()


def test_every_public_name_has_a_page(pages):
    """Under its bare name, which the navigation shows."""
    package = Path(sklearn_dialpref.__file__).parent
    found = [module.name for module in pkgutil.iter_modules([str(package)])]
    modules = [
        importlib.import_module(f"sklearn_dialpref.{name}")
        for name in found
        if not name.startswith("_")
    ]
    public = {
        name for module in [sklearn_dialpref, *modules] for name in getattr(module, "__all__", [])
    }
    documented = {name.split(".")[-2] for name in pages if name.startswith("api/")}
    assert public - {"__version__"} == documented
    for name in pages:
        if name.startswith("api/"):
            title = re.search(r"<h1>(.*?)<", (SITE / name).read_text())[1]
            assert title == name.split(".")[-2]


def test_the_start_page_runs_and_tells_the_truth(capsys, monkeypatch):
    """Its code; and the labels in its picture, which are those of that code's classifier."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    drawings = importlib.import_module("_drawings")
    start = (ROOT / "docs" / "index.rst").read_text()
    code = re.search(r"code-block:: python\n\n((?: {3}.*\n|\n)+)", start)[1]
    names = {}
    exec(compile(dedent(code), "index.rst", "exec"), names)
    assert float(capsys.readouterr().out.split()[-1]) > 0.7
    X = names["chats"].X[names["test"]]
    turns = X[X["dialogue_id"] == drawings.CHAT][: len(drawings.TURNS)]
    shown = drawings.TURNS
    assert [" ".join(turn.lines) for turn in shown] == list(turns["text"])
    assert [turn.speaker for turn in shown] == list(turns["speaker"])
    assert [turn.label for turn in shown] == list(
        names["clf"].predict(X)[X.index.get_indexer(turns.index)]
    )


def test_menus_on_a_telephone(window, address):
    page, wrong = window
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{address}/user_guide/data.html")
    page.locator(".primary-toggle").click()
    menu = page.locator("#pst-primary-sidebar-modal")
    menu.get_by_role("link", name="API", exact=True).click()
    page.wait_for_url("**/api.html")
    page.locator(".secondary-toggle").click()
    page.locator("#pst-secondary-sidebar-modal").get_by_role("link", name="Losses").click()
    page.wait_for_url("**/api.html#losses")
    assert not wrong


def test_search_theme_and_versions(window, address):
    page, wrong = window
    page.goto(f"{address}/search.html?q=LabelledGroupKFold")
    page.locator("#search-results a", has_text="LabelledGroupKFold").first.wait_for()
    theme = page.evaluate("document.documentElement.dataset.mode")
    page.locator("button.theme-switch-button").first.click()
    assert theme == "auto"
    page.locator("button.version-switcher__button").first.click()
    assert page.locator(".version-switcher__menu a").first.is_visible()
    assert not wrong


def test_opened_from_a_folder(window):
    page, wrong = window
    page.goto((SITE / "user_guide" / "losses.html").as_uri(), wait_until="load")
    settle(page)
    assert page.locator("mjx-container").first.is_visible()
    assert not wrong


def test_prompts_are_not_copied(window, address):
    page, _ = window
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{address}/index.html")
    page.locator(".dp-install button.copybtn").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("pip install 'sklearn-dialpref[")
