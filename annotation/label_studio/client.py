"""Connect to Label Studio through label-studio-sdk.

Call the endpoints on ``LabelStudioClient.sdk``. The HTTP session below the SDK adds what the
SDK leaves out:

- Reads are retried with growing pauses. Writes are sent once (``max_retries=0``).
- A write without an answer raises ``LostAnswerError``.
- Every other failure raises ``StudioError`` with a hint. The SDK's ``ApiError`` does not name
  the request.

Own HTTP is used only for what the SDK lacks:

==========================  ===========================  =========================================
request                     where                        reason
==========================  ===========================  =========================================
sign-in and sign-up forms   users._sign_in               HTML forms; there is no API
an account's first token    users._first_token           needs a session cookie; the SDK always
                                                         sends a token
GET /health and whoami      server._probe                /health is not in the SDK; its import
                                                         takes 2 s, too long for a status
GET .../resolve             media.check_bucket           answers bytes or a redirect, not JSON
GET /api/tasks/ (pages)     LabelStudioClient._get       signed and sent by the SDK's HTTP client;
                                                         its models take ten times as long to build
==========================  ===========================  =========================================
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import httpx
import tenacity

from annotation.label_studio.media import FOLDER, Source, is_loopback
from warehouse.errors import StudioError
from warehouse.masking import mask
from warehouse.storage import atomic

if TYPE_CHECKING:
    from label_studio_sdk.base_client import LabelStudioBase

EMAIL = "pipeline@risorius.test"
"""Account of the pipeline on a local server."""

_READ_TIMEOUT_S = 120
_WRITE_TIMEOUT_S = 300

_TOKEN_REFRESH = "/api/token/refresh/"
"""The one POST that may be repeated: it changes nothing on the server."""

_PROBLEMS = {
    300: ("Label Studio redirects to another address", "set the address that it redirects to"),
    400: (
        "Label Studio rejected the request",
        "check whether the project was edited by hand; if not, report a bug",
    ),
    401: (
        "Label Studio rejected the access token",
        "make a new one in its account settings and set LABEL_STUDIO_API_KEY "
        "(a local server's own is in credentials.json of the home)",
    ),
    403: ("Label Studio denied permission", "use the token of an organization member"),
    404: (
        "Label Studio has no such object",
        "check whether it was deleted by hand; `risorius label push` creates it again",
    ),
    500: (
        "Label Studio failed to complete the request",
        "read its log (server.log of the home) and try again",
    ),
}
"""Status code, or its hundred, to problem and hint."""

_NOT_JSON = ("Label Studio did not answer in JSON", "check the address of the server")


class LostAnswerError(StudioError):
    """A write was sent and no answer arrived.

    It may or may not have been executed.
    """


class NotFoundError(StudioError):
    """The server has no such object."""


@dataclass(frozen=True)
class Address:
    """URL and access token of a Label Studio server.

    Attributes:
        pid: process id of a local server; None for a server that runs elsewhere.
        started: this call started the server.
    """

    url: str
    token: str = field(repr=False)
    pid: int | None = None
    started: bool = False

    @property
    def warning(self) -> str | None:
        """Return a warning if faces and token travel unencrypted, else None."""
        if self.url.startswith("https://") or is_loopback(self.url):
            return None
        return (
            "warning: faces and access token travel unencrypted to "
            f"{urlsplit(self.url).hostname}; put Label Studio behind https"
        )


@dataclass(frozen=True)
class Credentials:
    """Account of the pipeline on the local server."""

    email: str
    password: str = field(repr=False)
    token: str = field(repr=False)


class LabelStudioClient:
    """Signed-in Label Studio SDK client with retries and error messages.

    Use as a context manager, or call ``close``. Threads may share it.

    Args:
        retry_for_s: how long a read is retried while the server is unreachable or answers 5xx.
        media: where the server reads pictures from.

    Attributes:
        sdk: the SDK client. Its methods raise ``StudioError`` and ``LostAnswerError``.

    Raises:
        StudioError: the personal access token has expired.
    """

    def __init__(
        self, address: Address, *, retry_for_s: float = 15, media: Source = FOLDER
    ) -> None:
        # `label_studio_sdk.LabelStudio` adds pandas and 5 s of CPU to the import.
        from label_studio_sdk.base_client import LabelStudioBase
        from label_studio_sdk.core.api_error import ApiError

        self.url, self.media = address.url, media
        self._session = _Session(address, retry_for_s=retry_for_s, renew=self._renew_access_token)
        try:
            self.sdk: LabelStudioBase = LabelStudioBase(
                # Without the slash the SDK refreshes tokens outside of a path prefix.
                base_url=f"{address.url}/",
                api_key=address.token,
                httpx_client=self._session,
                max_retries=0,
            )
        except ApiError as error:
            self._session.close()
            detail = (error.body or {}).get("detail", "") if isinstance(error.body, dict) else ""
            problem, hint = _PROBLEMS[401]
            raise StudioError(f"{problem} ({address.url})", got=detail, hint=hint) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def task_pages(
        self,
        project_id: int,
        *,
        include: str,
        since: datetime | None = None,
        task_only: bool = False,
        page_size: int = 500,
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield pages of tasks by rising id, as the server's JSON.

        Each page is filtered by ``id > last id``. Numbered pages lose a task whenever an
        earlier one is deleted while they are read.

        Args:
            include: fields of tasks and annotations, separated by commas.
            since: yield only tasks changed at or after this time.
            task_only: leave out annotations and predictions.
        """
        last = 0
        while True:
            filters = [_filter("tasks:id", "greater", "Number", last)]
            if since is not None:
                time = since.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
                filters.append(_filter("tasks:updated_at", "greater_or_equal", "Datetime", time))
            query = {
                "ordering": ["tasks:id"], "filters": {"conjunction": "and", "items": filters}
            }  # fmt: skip
            page = self._get(
                "api/tasks/",
                project=project_id, page=1, page_size=page_size, include=include,
                fields="task_only" if task_only else "all", resolve_uri=False,
                query=json.dumps(query),
            )["tasks"]  # fmt: skip
            if page:
                yield page
            if len(page) < page_size:
                return
            last = page[-1]["id"]

    def tasks(
        self,
        project_id: int,
        *,
        include: str,
        since: datetime | None = None,
        task_only: bool = False,
        page_size: int = 500,
    ) -> Iterator[dict[str, Any]]:
        """Yield tasks one by one; see ``task_pages``."""
        for page in self.task_pages(
            project_id, include=include, since=since, task_only=task_only, page_size=page_size
        ):
            yield from page

    def import_tasks(self, project_id: int, tasks: list[dict[str, Any]]) -> list[int]:
        """Import tasks in one request, stored whole or not at all.

        Return their ids in order.

        Raises:
            LostAnswerError: no answer arrived; list the tasks before importing again.
            StudioError: the server rejected the tasks or stored another number of them.
        """
        answer = self.sdk.projects.import_tasks(
            # The SDK declares models and passes dicts through.
            project_id, request=tasks, commit_to_project=True, return_task_ids=True,
        )  # fmt: skip
        ids = answer.task_ids or []
        if answer.task_count != len(tasks) or len(ids) != len(tasks):
            raise StudioError(
                f"Label Studio did not store {len(tasks)} tasks in project {project_id}",
                got=f"it reports {answer.task_count}",
                hint="run the same command again; faces that have a task are not sent twice",
            )
        return list(ids)

    def counts(self, project_id: int) -> tuple[int, int]:
        """Return the number of tasks and of annotations, skips included."""
        names = ("id", "task_number", "total_annotations_number", "skipped_annotations_number")
        rows = self.sdk.projects.list_counts(
            ids=str(project_id), include=",".join(names)
        ).results  # fmt: skip
        if not rows:
            raise NotFoundError(
                f"Label Studio has no project {project_id}",
                got=self.url,
                hint="check whether it was deleted by hand; the same command makes a new one",
            )
        tasks, votes, skips = (getattr(rows[0], name) or 0 for name in names[1:])
        return tasks, votes + skips

    def last_change(self, project_id: int) -> str | None:
        """Return when a task of the project last changed, as text.

        None if it is empty.
        """
        page = self._get(
            "api/tasks/",
            project=project_id, page=1, page_size=1, fields="task_only",
            include="id,updated_at", query='{"ordering": ["-tasks:updated_at"]}',
        )["tasks"]  # fmt: skip
        return page[0]["updated_at"] if page else None

    def user_emails(self) -> dict[int, str]:
        """Return user id to e-mail.

        The server hides the address of a removed member.
        """
        return {user.id: user.email for user in self.sdk.users.list() if "@" in (user.email or "")}

    @property
    def server_time(self) -> datetime | None:
        """Return the server's clock at its last response; None if unknown."""
        return self._session.server_time

    def fetch(self, path: str, **headers: str) -> httpx.Response:
        """Send one GET and return the response, errors and redirects included.

        Raises:
            StudioError: the server is unreachable.
        """
        signed = self.sdk._client_wrapper.get_headers() | headers
        return self._session.send_once(self._session.build_request("GET", path, headers=signed))

    def _get(self, path: str, **params: Any) -> Any:
        """Read JSON without the SDK's models, which are ten times as slow.

        ``with_raw_response`` builds the models as well.
        """
        return self.sdk._client_wrapper.httpx_client.request(
            path, method="GET", params=params
        ).json()  # fmt: skip

    def _renew_access_token(self) -> str:
        """Return a new access token.

        The SDK renews by the local clock, which may be wrong.
        """
        tokens = self.sdk._client_wrapper._tokens_client
        tokens._access_token = None
        return tokens.api_key


def connect(
    address: Address, *, retry_for_s: float = 15, media: Source = FOLDER
) -> LabelStudioClient:
    """Return a client that has signed in once.

    Raises:
        StudioError: the server is unreachable or rejects the token.
    """
    client = LabelStudioClient(address, retry_for_s=retry_for_s, media=media)
    try:
        client.sdk.users.whoami()
    except BaseException:
        client.close()
        raise
    return client


def external(url: str, key: str) -> Address:
    """Return the address of a server that runs elsewhere.

    Raises:
        StudioError: the URL is not http(s), or the key is empty.
    """
    if not url.startswith(("http://", "https://")) or not key.strip():
        raise StudioError(
            "The address or access token of Label Studio is not usable",
            got=f"address {mask(url)!r}, {'a' if key.strip() else 'no'} token",
            hint="set LABEL_STUDIO_URL=https://… and LABEL_STUDIO_API_KEY to an access token",
        )
    return Address(url=url.rstrip("/"), token=key.strip())


def credentials(studio_dir: Path) -> Credentials:
    """Read the pipeline's account, or create it.

    The file is ``credentials.json``, mode 600.
    """
    path = studio_dir / "credentials.json"
    if not path.exists():
        account = {
            "email": EMAIL,
            "password": secrets.token_urlsafe(18),
            "token": secrets.token_hex(20),
        }
        write_private(path, account)
    return Credentials(**json.loads(path.read_text()))


def write_private(path: Path, content: object) -> None:
    """Write JSON atomically, readable by its owner only."""
    with atomic.replace_file(path) as draft:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "w") as out:
            json.dump(content, out, indent=1)


def date_of(header: str) -> datetime | None:
    """Return the time of a ``Date`` header in UTC; None if it has none."""
    with suppress(ValueError, TypeError, OverflowError):
        given = parsedate_to_datetime(header)
        # "-0000" is UTC from a place that does not say where it is (RFC 5322), and naive in Python.
        return given.replace(tzinfo=given.tzinfo or UTC).astimezone(UTC)
    return None


class _Session(httpx.Client):
    """HTTP session that retries reads, never writes.

    It raises ``StudioError``.

    Args:
        renew: returns a new access token; called once when a personal one is rejected.
    """

    def __init__(self, address: Address, *, retry_for_s: float, renew: Callable[[], str]) -> None:
        self._address, self._retry_for_s, self._renew = address, retry_for_s, renew
        local = is_loopback(address.url)
        super().__init__(
            base_url=address.url,
            timeout=_READ_TIMEOUT_S,
            # A proxy that is set for the internet must not see or break loopback traffic.
            trust_env=not local,
            # The development server answers in two writes. On a kept connection the second
            # one waits 40 ms for an acknowledgement: 65 ms per call instead of 15 ms.
            headers={"Connection": "close"} if local else None,
        )
        self.server_time: datetime | None = None

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request of the SDK by the rules for reads or for writes."""
        repeatable = request.method == "GET" or request.url.path.endswith(_TOKEN_REFRESH)
        send = self._send_read if repeatable else self._send_write
        response = send(request, **options)
        personal = request.headers.get("Authorization", "").startswith("Bearer ")
        if response.status_code == 401 and personal:
            # A rejected request was not executed, so a write may be sent again as well.
            request.headers["Authorization"] = f"Bearer {self._renew()}"
            response = send(request, **options)
        self.server_time = date_of(response.headers.get("date") or "") or self.server_time
        json_type = "json" in response.headers.get("content-type", "")
        if response.is_success and (json_type or not response.content):
            return response
        raise self._http_error(response)

    def send_once(self, request: httpx.Request) -> httpx.Response:
        """Send a request without retries and return any answer."""
        try:
            return super().send(request)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None

    def _send_read(self, request: httpx.Request, **options: Any) -> httpx.Response:
        def send() -> httpx.Response:
            return httpx.Client.send(self, request, **options)

        retry = tenacity.Retrying(
            stop=tenacity.stop_after_delay(self._retry_for_s),
            wait=tenacity.wait_exponential_jitter(multiplier=0.2, max=3),
            retry=tenacity.retry_if_exception_type(httpx.TransportError)
            | tenacity.retry_if_result(_is_transient),
            # After the last attempt: its answer, or its exception.
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        try:
            return retry(send)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None

    def _send_write(self, request: httpx.Request, **options: Any) -> httpx.Response:
        request.extensions["timeout"] = httpx.Timeout(_WRITE_TIMEOUT_S).as_dict()
        try:
            response = super().send(request, **options)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise self._unreachable(error) from None
        except httpx.TransportError as error:
            raise LostAnswerError(
                f"Label Studio at {self._address.url} did not answer",
                got=f"{type(error).__name__}; the request may have been executed",
                hint="see that it runs (`risorius studio up`) and run the same command again",
            ) from None
        if response.status_code in (502, 503, 504):
            # A proxy answers; the server behind it may still be at work.
            raise LostAnswerError(
                f"Label Studio behind {self._address.url} did not answer",
                got=f"HTTP {response.status_code} from a proxy",
                hint="see that it runs and run the same command again",
            )
        return response

    def _http_error(self, response: httpx.Response) -> StudioError:
        """Convert an HTTP error into a StudioError with a hint."""
        code, text = response.status_code, mask(_error_text(response), self._address.token)
        problem, hint = _PROBLEMS.get(code) or _PROBLEMS.get(code // 100 * 100, _NOT_JSON)
        request = f"{response.request.method} {response.request.url.path}"
        kind = NotFoundError if code == 404 else StudioError
        got = f"HTTP {code} for {request}: {text}"
        return kind(f"{problem} ({self._address.url})", got=got, hint=hint)

    def _unreachable(self, error: httpx.TransportError) -> StudioError:
        return StudioError(
            f"Label Studio does not answer at {self._address.url}",
            got=type(error).__name__,
            hint="start it with `risorius studio up`, or check LABEL_STUDIO_URL",
        )


def _is_transient(response: httpx.Response) -> bool:
    return response.status_code >= 500 or response.status_code == 429


def _error_text(response: httpx.Response) -> str:
    """Return the JSON detail of an error, or the title of an HTML page."""
    try:
        body = response.json()
    except ValueError:
        title = re.search(r"<title>\s*(.*?)\s*</title>", response.text, re.DOTALL)
        return title.group(1)[:200] if title else response.reason_phrase or "no text"
    if isinstance(body, dict):
        body = body.get("validation_errors") or body.get("detail") or body
    return json.dumps(body)[:400] if not isinstance(body, str) else body[:400]


def _filter(name: str, operator: str, kind: str, value: Any) -> dict[str, Any]:
    return {"filter": f"filter:{name}", "operator": operator, "type": kind, "value": value}
