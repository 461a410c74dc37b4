"""Access: the key, sessions of the page, and requests that other sites make a browser send."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from blemish.errors import ServeError
from blemish.serve.api.access import FAILURES, Access
from blemish.serve.api.problems import Refusal
from blemish.serve.settings import read_settings
from tests.serve.serving import Serve, Served

KEY = "0123456789abcdef-key"


@pytest.fixture(scope="module")
def locked(serve: Serve) -> Iterator[Served]:
    with serve(key=KEY) as found:
        yield found


def test_without_the_key_nothing_of_the_line_is_given(locked: Served) -> None:
    client = locked.client
    for path in (
        "/api/decisions",
        "/api/models",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/api/live",
        "/nowhere",
    ):
        answer = client.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
        assert set(answer.json()) == {"error", "remedy", "error_text", "remedy_text"}
    assert client.post("/api/inspect", content=b"x").status_code == 401
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200


def test_the_key_opens_by_either_header(locked: Served) -> None:
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}):
        assert locked.client.get("/api/models", headers=headers).status_code == 200
    for wrong in ("", KEY[:-1], KEY + "x", "schlüssel"):
        answer = locked.client.get("/api/models", headers={"X-API-Key": wrong.encode()})
        assert answer.status_code == 401


def test_a_session_opens_its_own_page_alone(locked: Served) -> None:
    client = locked.client
    assert client.get("/api/session").json() == {"needs_key": True, "is_signed_in": False}
    assert client.post("/api/login", json={"key": "no"}).status_code == 401
    answer = client.post("/api/login", json={"key": KEY})
    assert answer.json() == {"needs_key": True, "is_signed_in": True}
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    try:
        assert client.get("/api/models").status_code == 200
        assert client.get("/api/session").json()["is_signed_in"]
        other = {"Origin": "http://evil.example"}
        assert client.post("/api/inspect", content=b"x", headers=other).status_code == 403
        assert (
            client.post("/api/inspect", content=b"x", headers={"Sec-Fetch-Site": "cross-site"}).status_code
            == 403
        )
        own = {"Origin": "http://127.0.0.1"}
        assert client.post("/api/inspect", content=b"x", headers=own).status_code == 415
        assert (
            client.post("/api/inspect", content=b"x", headers={"Sec-Fetch-Site": "same-origin"}).status_code
            == 415
        )
        client.post("/api/logout")
        assert client.get("/api/models").status_code == 401
    finally:
        client.cookies.clear()


def test_sessions_are_signed_and_end() -> None:
    access = Access(KEY)
    session = access.new_session()
    assert access.is_session(session)
    ends, random, signature = session.split(".")
    assert not access.is_session(f"{int(ends) + 1}.{random}.{signature}")
    assert not access.is_session(session[:-1])
    assert not access.is_session("")
    assert not access.is_session(access.new_session(now=time.time() - 10**8))
    assert not Access(KEY + "new").is_session(session)


def test_wrong_keys_of_one_address_are_counted_and_those_of_others_not() -> None:
    access = Access(KEY)
    for _ in range(FAILURES):
        assert not access.is_key("wrong", "10.0.0.1")
    with pytest.raises(Refusal) as refused:
        access.is_key(KEY, "10.0.0.1")
    assert refused.value.status_code == 429
    assert access.is_key(KEY, "10.0.0.2")


def test_without_a_key_only_this_machines_names_are_answered(served: Served) -> None:
    client = served.client
    for host in ("127.0.0.1:8000", "localhost", "[::1]:9"):
        assert client.get("/api/models", headers={"Host": host}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "[", ""):
        assert client.get("/api/models", headers={"Host": host}).status_code == 421, host
    cross = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert client.post("/api/inspect", content=b"x", headers=cross).status_code == 403
    assert client.post("/api/inspect", content=b"x", headers={"Origin": "null"}).status_code == 403


def test_answers_forbid_browsers_to_load_anything_from_outside(served: Served) -> None:
    headers = served.client.get("/docs").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "factory.example"])
def test_other_machines_are_let_in_with_a_key_alone(host: str) -> None:
    with pytest.raises(ServeError, match="without a key"):
        read_settings(None, {"host": host}).access_key()
    assert read_settings(None, {"host": host, "key": KEY}).access_key() == KEY
    assert read_settings(None, {"host": "127.0.0.5"}).access_key() is None
