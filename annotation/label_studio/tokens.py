"""The two kinds of token the server knows, and how each signs a request."""

from __future__ import annotations

from collections.abc import Generator

import httpx

from annotation.label_studio.address import Address


def sign_in(address: Address) -> httpx.Auth:
    """What signs requests with this address's token: a personal one is a JWT, the old kind hex."""
    if address.token.count(".") == 2:
        return _Pat(address.token, address.url)
    return _Legacy(address.token)


class _Legacy(httpx.Auth):
    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Token {self._token}"
        yield request


class _Pat(httpx.Auth):
    """A personal access token buys access tokens that live for minutes."""

    requires_response_body = True

    def __init__(self, token: str, url: str) -> None:
        self._token, self._refresh, self._access = token, f"{url}/api/token/refresh/", ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self._access:
            request.headers["Authorization"] = f"Bearer {self._access}"
            response = yield request
            if response.status_code != 401:
                return
        answer = yield httpx.Request("POST", self._refresh, json={"refresh": self._token})
        if not answer.is_success:
            return  # the caller sees this answer: it says whether the token is expired or revoked
        self._access = answer.json()["access"]
        request.headers["Authorization"] = f"Bearer {self._access}"
        yield request
