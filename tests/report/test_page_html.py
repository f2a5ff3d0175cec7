"""The page as a file: complete, escaped, safe to open."""

import base64
import json
import re
from html.parser import HTMLParser

import pytest
from plotly.offline import get_plotlyjs

from cachebench.report.page import collect, render
from helpers import unpacked
from report.tiny import CONFIG


class Resources(HTMLParser):
    """Collects what a page loads or runs, and what it links to."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.links, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.loaded += [values[key] for key in ("src", "srcset", "data", "poster") if key in values]
        if tag == "a":
            self.links.append(values["href"])
        elif "href" in values:
            self.loaded.append(values["href"])


@pytest.fixture(scope="module")
def html(frame, drawn):
    paths = [path for _, *files in drawn.values() for path in files]
    folder = paths[0].parents[2]
    (folder / "config.yaml").write_text(json.dumps(CONFIG))
    data = collect.collect(CONFIG, frame, folder)
    text = render.render(CONFIG, frame, folder / "config.yaml", paths, folder, data)
    return unpacked(text).replace(get_plotlyjs(), "")


def test_page_shows_every_reason_escaped(html, frame):
    for reason in frame.reason[frame.status != "ok"]:
        assert reason.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in html
    assert html.count("<script>") == 4 and "alert(1)</script>" not in html
    assert "tiny &amp; co" in html


def test_page_loads_nothing_from_elsewhere(html):
    found = Resources(html)
    assert found.loaded and all(source.startswith("data:image/svg+xml;base64,") for source in found.loaded)
    assert not re.search(r"@import|url\(|fetch\(|https?://", html)
    assert "link" not in found.tags and "iframe" not in found.tags
    assert b"<svg" in base64.b64decode(found.loaded[0].partition(",")[2])
    links = {"results.csv", "config.yaml", "tables/r_1.md", "tables/r_1.tex", "figures/r_1/pareto.pdf"}
    assert links <= set(found.links)


def test_page_has_both_colour_schemes_and_a_phone_width(html):
    assert "prefers-color-scheme: dark" in html and 'name="viewport"' in html
