"""
Seals a single-file Allure page: it fetches nothing, tells nobody, always starts, and leads with the
verdict.

The stock page loads an analytics script from outside, and its application may start before the
embedded data is declared and then look for files that are not there. Both are mended here, after
generation, and the result is checked: a page that could still reach out is refused.
"""

import base64
import re
from collections.abc import Iterator
from html import escape
from html.parser import HTMLParser
from typing import Final

#: inline and embedded content only
POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline' data: blob:; style-src 'unsafe-inline' data:; "
    "img-src data: blob:; font-src data:; media-src data: blob:; connect-src data: blob:; "
    "frame-src data: blob:; worker-src blob:; form-action 'none'; object-src 'none'"
)
_HEAD: Final = (
    f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    '<meta name="referrer" content="no-referrer">'
    "<script>window.allureReportData={};window.allureReportDataReady=false;</script>"
)
_OUTSIDE_SCRIPT: Final = re.compile(
    r"<script\b[^>]*\bsrc=[\"'](?:https?:)?//[^>]*>\s*</script>", re.IGNORECASE
)
_ANALYTICS: Final = re.compile(r"<script>\s*window\.dataLayer\b.*?</script>", re.DOTALL)
_TITLE: Final = re.compile(r"<title>.*?</title>", re.DOTALL)
_APP: Final = '<div id="app"></div>'
_EMBEDDED: Final = re.compile(r"\bd\(\"(?P<name>(?:[^\"\\]|\\.)*)\",\s*\"(?P<body>[A-Za-z0-9+/=]*)\"\)")
_REACHING: Final = ("src", "href", "srcset", "action", "data", "poster", "background", "ping")
_OUTSIDE: Final = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)


class NotSealableError(Exception):
    """The generated page is not the one this code knows, or would still reach outside."""


def seal(text: str, *, title: str, banner: str) -> str:
    """
    Return the page without analytics, with a content policy, with the first screen on top.

    Args:
        text: the generated page.
        title: shown in the browser's tab.
        banner: HTML fragment put above the application.

    Raises:
        NotSealableError: when the page has another shape than expected.
    """
    for needle, what in (("<head>", "no head"), (_APP, "no application"), ("allureReportData", "no data")):
        if needle not in text:
            raise NotSealableError(f"the generated page has {what}")
    text = _ANALYTICS.sub("", _OUTSIDE_SCRIPT.sub("", text))
    text = _TITLE.sub(lambda _: f"<title>{escape(title)}</title>", text, count=1)
    # the policy must stand before anything it is to hold back, the data before anything that reads it
    text = text.replace("<head>", f"<head>{_HEAD}", 1)
    text = text.replace(_APP, f"{banner}{_APP}", 1)
    found = outside_references(text)
    if found:
        raise NotSealableError(f"the generated page still reaches outside: {found[0]}")
    return text


def outside_references(text: str) -> list[str]:
    """
    Return every tag of a page that would make a browser fetch from elsewhere, as "tag attribute".
    """
    scanner = _Scanner()
    scanner.feed(text)
    return scanner.found


def embedded_parts(text: str) -> Iterator[tuple[str, str]]:
    """
    Yield name and decoded text of everything embedded in a page; what is not text yields "".
    """
    for part in _EMBEDDED.finditer(text):
        try:
            yield part["name"], base64.b64decode(part["body"]).decode()
        except ValueError:
            yield part["name"], ""


def visible_text(text: str) -> str:
    """
    Return a page's title, text and attributes, without scripts, styles and embedded data.
    """
    reader = _Reader()
    reader.feed(text)
    return "\n".join(reader.texts)


class _Scanner(HTMLParser):
    """Looks at markup only: scripts' text is not markup."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # a link a person may click on fetches nothing by itself
        if tag == "a":
            return
        self.found.extend(
            f"{tag} {name}" for name, value in attrs if name in _REACHING and value and _OUTSIDE.match(value)
        )


class _Reader(HTMLParser):
    """Collects what a page shows."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._skipping = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._skipping = tag in {"script", "style"}
        self.texts.extend(value for _, value in attrs if value and not value.startswith("data:"))

    def handle_endtag(self, tag: str) -> None:
        if tag in {"script", "style"}:
            self._skipping = False

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self.texts.append(data)
