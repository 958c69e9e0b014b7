"""Talking to a Label Studio: reads are tried again, writes never, failures are StudioErrors.

Plain HTTP rather than the SDK on this path: the SDK repeats POSTs by itself, which makes
duplicates of an import whose answer was lost, and parses every task into a model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import tenacity

from annotation.label_studio.address import LOOPBACK, Address
from annotation.label_studio.media import FOLDER, Source
from annotation.label_studio.refusals import refusal
from annotation.label_studio.tokens import sign_in
from warehouse.errors import StudioError


class LostAnswerError(StudioError):
    """A write went out and no answer came back: it may or may not have happened."""


class Client:
    """One signed-in session. Use as a context manager, or ``close`` it.

    Args:
        patience_s: how long a read is tried again while the server is away or answers 5xx.
        media: where this server gets the home's pictures from.
    """

    def __init__(
        self,
        address: Address,
        *,
        patience_s: float = 15,
        timeout_s: float = 120,
        media: Source = FOLDER,
    ) -> None:
        self.url, self._token, self._patience_s = address.url, address.token, patience_s
        self.media = media
        local = urlsplit(address.url).hostname in LOOPBACK
        self._http = httpx.Client(
            base_url=address.url,
            auth=sign_in(address),
            timeout=timeout_s,
            # A proxy set for the internet must not see, or break, what goes to loopback.
            trust_env=not local,
            # The development server answers in two writes; on a kept connection the second one
            # waits 40 ms for the first one's acknowledgement. Measured: 65 ms a call, 15 ms so.
            headers={"Connection": "close"} if local else None,
        )

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
        self._http.close()

    def read(self, path: str, **params: Any) -> Any:
        """GET, tried again with growing pauses while the server is away or failing.

        Raises:
            StudioError: the server stays away, refuses the token, or has no such thing.
        """
        try:
            for attempt in tenacity.Retrying(
                stop=tenacity.stop_after_delay(self._patience_s),
                wait=tenacity.wait_exponential_jitter(multiplier=0.2, max=3),
                retry=tenacity.retry_if_exception_type((httpx.TransportError, _FailingError)),
                reraise=True,
            ):
                with attempt:
                    response = self._http.get(path, params=params)
                    if response.status_code >= 500 or response.status_code == 429:
                        raise _FailingError(response)
        except _FailingError as error:
            raise self._refusal(error.response) from None
        except httpx.TransportError as error:
            raise self._away(error) from None
        return self._content(response)

    def fetch(self, path: str, **headers: str) -> httpx.Response:
        """GET, once: the answer as it is, a refusal or a redirect included.

        Raises:
            StudioError: the server is away.
        """
        try:
            return self._http.get(path, headers=headers)
        except httpx.TransportError as error:
            raise self._away(error) from None

    def write(self, method: str, path: str, body: Any = None, *, timeout_s: float = 300) -> Any:
        """POST, PATCH or DELETE, once.

        Raises:
            LostAnswerError: no answer came; list what is there before writing again.
            StudioError: nothing was sent, or the server refused it.
        """
        try:
            response = self._http.request(method, path, json=body, timeout=timeout_s)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise self._away(error) from None
        except httpx.TransportError as error:
            raise LostAnswerError(
                f"an answer from Label Studio at {self.url}",
                got=f"none ({type(error).__name__}); it may have done what was asked",
                hint="see that it runs (`risorius studio up`) and run the same command again",
            ) from None
        if response.status_code in (502, 503, 504):
            # A proxy speaks here; the server behind it may still be at work.
            raise LostAnswerError(
                f"an answer from Label Studio behind {self.url}",
                got=f"HTTP {response.status_code} from something in between",
                hint="see that it runs and run the same command again",
            )
        return self._content(response)

    def tasks(
        self,
        project_id: int,
        *,
        include: str,
        since: datetime | None = None,
        task_only: bool = False,
        page_size: int = 500,
    ) -> Iterator[dict[str, Any]]:
        """``pages``, task by task."""
        for page in self.pages(
            project_id, include=include, since=since, task_only=task_only, page_size=page_size
        ):
            yield from page

    def pages(
        self,
        project_id: int,
        *,
        include: str,
        since: datetime | None = None,
        task_only: bool = False,
        page_size: int = 500,
    ) -> Iterator[list[dict[str, Any]]]:
        """Tasks of a project by rising id, those changed at or after ``since`` if given.

        Each page asks for ids beyond the last one: numbered pages lose a task whenever one
        before it is deleted meanwhile.
        """
        last = 0
        while True:
            wanted = [_filter("tasks:id", "greater", "Number", last)]
            if since is not None:
                moment = since.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
                wanted.append(_filter("tasks:updated_at", "greater_or_equal", "Datetime", moment))
            query = {
                "ordering": ["tasks:id"], "filters": {"conjunction": "and", "items": wanted}
            }  # fmt: skip
            page = self.read(
                "/api/tasks/",
                project=project_id, page=1, page_size=page_size, include=include,
                fields="task_only" if task_only else "all", resolve_uri="false",
                query=json.dumps(query),
            )["tasks"]  # fmt: skip
            if page:
                yield page
            if len(page) < page_size:
                return
            last = page[-1]["id"]

    def counts(self, project_id: int) -> tuple[int, int]:
        """How many tasks and how many annotations (skips included) the database holds now."""
        names = ("task_number", "total_annotations_number", "skipped_annotations_number")
        rows = self.read(
            "/api/projects/counts/", ids=project_id, include=",".join(("id", *names))
        )["results"]  # fmt: skip
        if not rows:
            raise self._no_project(project_id)
        tasks, votes, skips = (rows[0][name] for name in names)
        return tasks, votes + skips

    def whoami(self) -> dict[str, Any]:
        """The account this client is signed in with."""
        return self.read("/api/current-user/whoami")

    def users(self) -> dict[int, str]:
        """User id to e-mail of every member; of a removed one the server hides the address."""
        return {
            user["id"]: user["email"] for user in self.read("/api/users/") if "@" in user["email"]
        }

    def _content(self, response: httpx.Response) -> Any:
        if response.is_success and not response.content:
            return None
        if response.is_success and "json" in response.headers.get("content-type", ""):
            return response.json()
        raise self._refusal(response)

    def _refusal(self, response: httpx.Response) -> StudioError:
        return refusal(response, url=self.url, token=self._token)

    def _away(self, error: httpx.TransportError) -> StudioError:
        return StudioError(
            f"Label Studio to answer at {self.url}",
            got=type(error).__name__,
            hint="start it with `risorius studio up`, or check LABEL_STUDIO_URL",
        )

    def _no_project(self, project_id: int) -> StudioError:
        return StudioError(
            f"project {project_id} at {self.url}",
            got="no such project",
            hint="was it deleted by hand? run the same command again and a new one is made",
        )


def connect(address: Address, *, patience_s: float = 15, media: Source = FOLDER) -> Client:
    """A client that has signed in once.

    Raises:
        StudioError: nothing answers there, or the token is refused.
    """
    client = Client(address, patience_s=patience_s, media=media)
    try:
        client.whoami()
    except BaseException:
        client.close()
        raise
    return client


class _FailingError(Exception):
    def __init__(self, response: httpx.Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def _filter(name: str, operator: str, kind: str, value: Any) -> dict[str, Any]:
    return {"filter": f"filter:{name}", "operator": operator, "type": kind, "value": value}
