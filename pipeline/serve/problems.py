"""Refusals as JSON: what was given, what was expected, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException


class Problem(BaseModel):
    """Why a request is refused."""

    problem: str = Field(description="What was given.")
    expected: str = Field(description="What was expected.")
    remedy: str = Field(description="What to do.")


class Refused(HTTPException):
    """A request that is refused.

    Args:
        status: Status of the answer.
        problem: What was given.
        expected: What was expected.
        remedy: What to do.
        headers: Headers of the answer.
    """

    def __init__(
        self,
        status: HTTPStatus,
        problem: str,
        expected: str,
        remedy: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, problem, headers)
        self.content = {"problem": problem, "expected": expected, "remedy": remedy}

    @property
    def response(self) -> JSONResponse:
        """The answer."""
        return JSONResponse(self.content, self.status_code, self.headers)


# Statuses of answers that refuse, for the OpenAPI document.
STATUSES = {
    HTTPStatus.BAD_REQUEST: "The body is no form.",
    HTTPStatus.UNAUTHORIZED: "The token is missing, or another one.",
    HTTPStatus.FORBIDDEN: "The request comes from a page of another site.",
    HTTPStatus.REQUEST_TIMEOUT: "The upload takes too long.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The clip is too large, or too long.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The clip is in no format that is read.",
    HTTPStatus.MISDIRECTED_REQUEST: "The server does not answer to this host name.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "A field is wrong, or the clip cannot be decoded.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "The server failed; its log says why.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Too many requests wait, or the server is about to end.",
}


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Entries of the OpenAPI document for some of `STATUSES`."""
    return {int(each): {"model": Problem, "description": STATUSES[each]} for each in statuses}


def answer_problems(app: FastAPI) -> None:
    """Have an app answer all its errors as a `Problem`."""
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error, Refused):
        return error.response
    content = {
        "problem": str(error.detail),
        "expected": "a request of the OpenAPI document, /openapi.json",
        "remedy": "change the address, the method or the body",
    }
    return JSONResponse(content, error.status_code, error.headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    # What was given is not quoted: it may be a whole clip.
    faults = [f"{each['loc'][-1]}: {each['msg']}" for each in error.errors()]
    return Refused(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "; ".join(faults),
        "fields as the OpenAPI document, /openapi.json, has them",
        "change these fields",
    ).response


async def _failed(*_: object) -> JSONResponse:
    return Refused(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "the server failed",
        "an answer",
        "read the log of the server, or tell who runs it",
    ).response
