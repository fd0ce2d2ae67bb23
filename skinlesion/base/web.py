"""What we tell other servers of ourselves, and in words what they sent in place of a file."""

import html
import re
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from http.client import HTTPResponse, responses
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from skinlesion.base.errors import brief

if TYPE_CHECKING:
    import requests  # not at run time: stages that download nothing start without it

LONGEST_PAGE = 256 * 1024  # bytes of a page that are read to name it

_GONE = {
    404: "there is no such file: look whether the data set has moved",
    410: "it was removed: look whether the data set has moved",
}
_REFUSED = {401: "access needs an account", 403: "access is refused"}
_LOGIN_ADDRESS = re.compile(r"log[-_]?in|sign[-_]?in|\b(sso|saml2?|shibboleth|idp|oauth2?|cas|wayf|auth)\b", re.IGNORECASE)
_LOGIN_PAGE = re.compile(r"<input[^>]+type=[\"']?password|<title[^>]*>[^<]*\b(log|sign)[ -]?[io]n\b", re.IGNORECASE)
_BROWSER_CHECK = re.compile(
    r"captcha|cf-chl|challenge-platform|awswaf|gokuprops|_incapsula_|datadome|just a moment|checking (your|the) browser|"
    r"(verify|making sure) (that )?you('re| are)|not a (ro)?bot|enable javascript and cookies",
    re.IGNORECASE,
)
_MAINTENANCE = re.compile(r"maintenance|unavailable|be back|out of service|down for|offline", re.IGNORECASE)
_TEXT = re.compile(r"<(title|message|h1)\b[^>]*>(?P<markup>[^<]+)|\"message\"\s*:\s*\"(?P<json>[^\"]+)", re.IGNORECASE)


@cache
def user_agent() -> str:
    """Name, version and, where pyproject.toml has one, address of the project: firewalls refuse the names of libraries."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return " ".join([f"{project['name']}/{project['version']}", *(f"(+{url})" for url in project.get("urls", {}).values())])


def is_page(beginning: bytes, content_type: str | None = None) -> bool:
    """Whether a web page or an answer in XML or JSON came: by its type, or by a first character that no file of ours has."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    marked = kind == "text/html" or kind.endswith(("xml", "json"))
    return marked or beginning.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"<", b"{"))


def name_answer(status: int, headers: Iterable[tuple[str, str]], body: bytes = b"", address: str = "") -> tuple[str, bool]:
    """What came in place of a file, by status, headers, the beginning of the body and the address that it came from at last.

    Returns
    -------
    In words, and whether it will stay so: a client that is no browser need not ask again.
    """
    headers = list(headers)
    text = body[:LONGEST_PAGE].decode("utf-8", "replace")
    page = is_page(body, next((value for name, value in headers if name.lower() == "content-type"), None))
    # As x-amzn-waf-action of AWS, cf-mitigated of Cloudflare, x-vercel-mitigated.
    marks = [f"{name}: {value}" for name, value in headers if value.strip().lower() in ("challenge", "captcha")]
    lasting = True
    if marks:
        reason = f"a firewall's challenge, which a browser alone passes, {marks[0]}"
    elif status in _GONE:
        reason = _GONE[status]
    elif page and (_LOGIN_PAGE.search(text) or _LOGIN_ADDRESS.search(urlsplit(address).netloc + urlsplit(address).path)):
        reason = "a login page came instead of the file"
    elif page and _BROWSER_CHECK.search(text):
        reason = "a challenge page came, a firewall's check that a browser alone passes"
    elif status in _REFUSED:
        reason = _REFUSED[status]
    else:
        lasting = not (status in (200, 206, 408, 429) or status >= 500)
        if page and (status == 503 or (not lasting and _MAINTENANCE.search(text))):
            reason = "a maintenance page came instead of the file"
        else:
            reason = "a web page came instead of the file" if page and status < 300 else responses.get(status, "unknown")
    said = _TEXT.search(text) if page else None
    quote = f", which says {brief(html.unescape(said['markup'] or said['json']).strip(), 80)}" if said else ""
    return f"HTTP {status} ({reason}{quote})", lasting


def name_response(response: "requests.Response", pieces: Iterable[bytes] | None = None) -> tuple[str, bool]:
    """The same of an answer that requests has; `pieces` is its body where some of it was taken already."""
    body = b""
    with suppress(OSError):  # requests' own errors too: what has come of a page is enough to name it
        for piece in response.iter_content(1024) if pieces is None else pieces:
            body += piece
            if len(body) >= LONGEST_PAGE:
                break
    return name_answer(response.status_code, response.headers.items(), body, response.url)


class _Named(urllib.request.BaseHandler):
    """Gives requests our name, and makes an error of a page that comes with a status of success."""

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        request.add_header("User-Agent", user_agent())
        return request

    def http_response(self, request: urllib.request.Request, response: HTTPResponse) -> HTTPResponse:
        status, headers = response.status, response.headers
        if 201 <= status < 300 or (status == 200 and is_page(response.peek(100), headers["Content-Type"])):
            raise urllib.error.HTTPError(request.full_url, status, response.reason, headers, response)
        return response

    https_request, https_response = http_request, http_response


@contextmanager
def named_urllib() -> Iterator[None]:
    """Let what libraries ask for through urllib carry our name, and let a page in place of a file be an HTTPError."""
    urllib.request.install_opener(urllib.request.build_opener(_Named))
    try:
        yield
    finally:
        urllib.request.install_opener(urllib.request.build_opener())
