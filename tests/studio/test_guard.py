"""Requests from other sites, through other names, and too many or too large uploads are refused."""

import asyncio
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from zeroshift.studio.pages.guard import Guard

MB = 2**20


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"page"})


def ask(guard: Guard, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, dict[str, str]]:
    """Status and headers of the answer to a request."""
    messages: list[Any] = []
    named = {"host": "127.0.0.1:7860", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http", "method": method, "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }  # fmt: skip

    async def send(message: Any) -> None:
        messages.append(message)

    asyncio.run(guard(scope, None, send))  # type: ignore[arg-type]
    answered = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
    return messages[0]["status"], answered


def broken(cause: Exception | None) -> Any:
    """An application that fails while it answers."""

    async def answer_and_fail(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("Caught handled exception, but response already started.") from cause

    return answer_and_fail


def test_the_stream_of_a_page_that_was_closed_ends_without_a_traceback() -> None:
    assert ask(Guard(broken(HTTPException(404)), local=True, max_bytes=MB))[0] == 200
    for cause in (ValueError(), None):
        with pytest.raises(RuntimeError, match="already started"):
            ask(Guard(broken(cause), local=True, max_bytes=MB))


@pytest.fixture
def guard() -> Guard:
    return Guard(answer, local=True, max_bytes=MB)


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "[::1]:7860"])
def test_this_machine_is_answered_with_a_policy_that_loads_nothing_from_elsewhere(guard: Guard, host: str) -> None:
    status, headers = ask(guard, host=host)
    assert status == 200
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1", ""])
def test_other_names_of_this_machine_are_refused(guard: Guard, host: str) -> None:
    assert ask(guard, host=host)[0] == 403


def test_requests_from_pages_of_other_sites_are_refused(guard: Guard) -> None:
    path = "/gradio_api/queue/join"
    assert ask(guard, path, "POST", origin="https://evil.example")[0] == 403
    assert ask(guard, path, "POST", origin="null")[0] == 403
    assert ask(guard, path, "POST", origin="http://127.0.0.1:7860")[0] == 200


def test_uploads_have_a_largest_size_and_number(guard: Guard) -> None:
    def upload(length: str) -> int:
        return ask(guard, "/gradio_api/upload", "POST", content_length=length)[0]

    assert upload(str(2 * MB)) == 413
    assert upload("many") == 413
    assert [upload("1000") for _ in range(60)] == [200] * 60
    assert upload("1000") == 429


def test_a_space_answers_any_name_and_may_be_framed() -> None:
    status, headers = ask(Guard(answer, local=False, max_bytes=MB, framed=True), host="me.hf.space")
    assert status == 200
    assert "frame-ancestors" not in headers["content-security-policy"]


@pytest.mark.parametrize(
    "error", [FileNotFoundError("photo.png"), RuntimeError("File at path photo.png does not exist.")]
)
def test_a_file_that_was_just_removed_is_no_fault(error: Exception) -> None:
    async def gone(scope: Any, receive: Any, send: Any) -> None:
        raise error

    assert ask(Guard(gone, local=True, max_bytes=MB))[0] == 404
