"""Access: a key for programs, a cookie for the page, and no requests that other sites make a browser send."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import deque
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from blemish.serve.api.problems import Problem, Refusal, answer, answers
from blemish.serve.settings import LOOPBACK

COOKIE = "blemish_session"
SESSION_SECONDS = 14 * 24 * 3600
FAILURES, FAILURE_SECONDS = 10, 60.0
"""Wrong keys of one address in so many seconds after which all its keys are refused for as long."""
ADDRESSES = 1000
"""Addresses of which wrong keys are counted."""
OPEN = ("/healthz", "/readyz", "/api/login", "/api/session")
"""Paths that need no key; the page and its files do not either, as they hold nothing of the line."""
OPEN_BELOW = ("/page/",)
_SAFE = ("GET", "HEAD", "OPTIONS")


class Access:
    """Checks keys and makes sessions from them.

    Parameters
    ----------
    key: None lets every request of this machine in.
    hosts: names in the header ``Host`` that are answered without a key, beside those of this machine.
    """

    def __init__(self, key: str | None, hosts: tuple[str, ...] = ()) -> None:
        self._key, self._hosts = key, frozenset((*LOOPBACK, *hosts))
        self._failures: dict[str, deque[float]] = {}

    @property
    def needs_key(self) -> bool:
        """True if requests need a key or a session."""
        return self._key is not None

    def is_key(self, given: str, client: str) -> bool:
        """Compare in a time that does not tell how much of ``given`` is right.

        Parameters
        ----------
        client: address of the machine that asks.

        Raises
        ------
        Refusal
            429 after too many wrong ones from this address.
        """
        assert self._key is not None
        now = time.monotonic()
        failures = self._failures.get(client)
        if failures and len(failures) == FAILURES and now - failures[0] < FAILURE_SECONDS:
            raise Refusal(
                429,
                "too many wrong keys from this address",
                "wait a minute",
                {"Retry-After": str(int(FAILURE_SECONDS))},
            )
        is_right = hmac.compare_digest(given.encode(errors="replace"), self._key.encode())
        if not is_right:
            self._failures.setdefault(client, deque(maxlen=FAILURES)).append(now)
            while len(self._failures) > ADDRESSES:
                self._failures.pop(next(iter(self._failures)))
        return is_right

    def new_session(self, now: float | None = None) -> str:
        """Value of the cookie: when it ends, random, and both signed with the key, so that a new key ends all sessions."""
        ends = int((time.time() if now is None else now) + SESSION_SECONDS)
        text = f"{ends}.{secrets.token_urlsafe(16)}"
        return f"{text}.{self._signature(text)}"

    def is_session(self, cookie: str) -> bool:
        """True if :meth:`new_session` gave ``cookie`` and it has not ended."""
        text, _, signature = cookie.rpartition(".")
        ends = text.partition(".")[0]
        if not hmac.compare_digest(signature.encode(), self._signature(text).encode()):
            return False
        return ends.isdecimal() and int(ends) > time.time()

    def _signature(self, text: str) -> str:
        return hmac.new((self._key or "").encode(), text.encode(), hashlib.sha256).hexdigest()

    def is_host(self, host: str) -> bool:
        """True if the header ``Host`` names this server."""
        return "*" in self._hosts or (_host_name(host) or "") in self._hosts

    def session_of(self, headers: Headers) -> bool:
        """True if the headers hold the cookie of a session."""
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return found is not None and self.is_session(found.value)


class AccessControl:
    """ASGI middleware that answers only who may ask.

    Without a key, a browser on this machine could be made to send requests by any site that it shows. So the header
    ``Host`` has to name this server, and changes have to come from its own pages.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(scope)
            except Refusal as refusal:
                problem = Problem(error=str(refusal.detail), remedy=refusal.remedy)
                await answer(refusal.status_code, problem, refusal.headers)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers, path, access = Headers(scope=scope), scope["path"], self._access
        given = _given_key(headers)
        if access.needs_key and given is not None:
            if not access.is_key(given, _client(scope)):
                raise _unknown("the key is wrong")
            return  # a page of another site cannot know it
        if scope["method"] not in _SAFE:
            _refuse_other_sites(headers)
        if not access.needs_key:
            if not access.is_host(headers.get("host", "")):
                raise Refusal(
                    421,
                    "the header Host names another server",
                    "use the address that blemish serve printed, or set allowed_hosts",
                )
        elif not _is_open(path) and not access.session_of(headers):
            raise _unknown("a key is needed")


def _unknown(error: str) -> Refusal:
    remedy = "send the header Authorization: Bearer KEY, or sign in on the page"
    return Refusal(401, error, remedy, {"WWW-Authenticate": "Bearer"})


def _is_open(path: str) -> bool:
    return path == "/" or path in OPEN or path.startswith(OPEN_BELOW)


def _given_key(headers: Headers) -> str | None:
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    return headers.get("x-api-key")


def _refuse_other_sites(headers: Headers) -> None:
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    is_own = site in ("same-origin", "none") if site is not None else True
    if is_own and origin is not None and site is None:
        is_own = urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    if not is_own:
        raise Refusal(403, "the request comes from a page of another site", "use the page of this server")


def _client(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


class Login(BaseModel):
    """The key, typed on the page."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(max_length=1000)


class SessionState(BaseModel):
    """Whether a key is needed, and whether this browser has given it."""

    needs_key: bool
    is_signed_in: bool


router = APIRouter(tags=["access"])


@router.post("/api/login", responses=answers(401, 429))
def login(given: Login, request: Request, response: Response) -> SessionState:
    """Exchange the key for a cookie that lasts 14 days."""
    access: Access = request.app.state.access
    if access.needs_key:
        if not access.is_key(given.key, _client(request.scope)):
            raise Refusal(401, "the key is wrong", "ask whoever set the server up")
        response.set_cookie(
            COOKIE,
            access.new_session(),
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
    return SessionState(needs_key=access.needs_key, is_signed_in=True)


@router.post("/api/logout")
def logout(request: Request, response: Response) -> SessionState:
    """Forget the cookie in this browser."""
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return SessionState(needs_key=request.app.state.access.needs_key, is_signed_in=False)


@router.get("/api/session")
def session(request: Request) -> SessionState:
    """Say whether the page has to ask for the key."""
    access: Access = request.app.state.access
    is_signed_in = not access.needs_key or access.session_of(request.headers)
    return SessionState(needs_key=access.needs_key, is_signed_in=is_signed_in)
