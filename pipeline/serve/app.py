"""The app: a page, and the interface that it calls, described by /openapi.json."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, File, Form, Request, Response, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPBearer

from features.transcription.recogniser import Recogniser
from pipeline.handover.loading import LoadedRun
from pipeline.predict.records import Columns
from pipeline.predict.rows import SHORTEST_SECONDS, WINDOW_SECONDS
from pipeline.runs.head import read_head
from pipeline.serve.answers import Answerer, Question
from pipeline.serve.batches import Batcher
from pipeline.serve.clips import drawn, keep
from pipeline.serve.document import Served, answer_model
from pipeline.serve.gate import API, Access, Gate
from pipeline.serve.limits import CHARACTERS, Limits
from pipeline.serve.page import page_files
from pipeline.serve.problems import Refused, answer_problems, documented

BATCH = 16  # questions that are computed together, at most
BATCH_SECONDS = 60.0  # of their audio: all of them wait until the last is computed
ABOUT = """Emotions that a trained model hears in a clip, with and without its words.

Labels are what listeners perceive, no diagnosis, and no ground for decisions about people."""
ASKED = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
ALWAYS = (
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.MISDIRECTED_REQUEST,
    HTTPStatus.INTERNAL_SERVER_ERROR,
)
A = TypeVar("A")
Sound = Annotated[UploadFile | None, File(description="A WAV, FLAC, Ogg or MP3 file.")]
Text = Annotated[str | None, Form(max_length=CHARACTERS, description="What is said in it.")]
Heard = Annotated[
    str | None, Form(max_length=CHARACTERS, description="What a recogniser heard in it.")
]
Recognise = Annotated[bool, Form(description="Recognise words where they are not given.")]
Window = Annotated[
    float,
    Form(
        ge=SHORTEST_SECONDS,
        le=WINDOW_SECONDS,
        allow_inf_nan=False,
        description="A longer clip without words is divided evenly, into a row a piece.",
    ),
]


@contextlib.contextmanager
def serving(
    model: LoadedRun, recogniser: Recogniser | None, access: Access, limits: Limits
) -> Iterator[Gate]:
    """Context of an app that answers with a model; at its end no thread or file is left."""
    answerer = Answerer(model, recogniser)
    with tempfile.TemporaryDirectory(prefix="heronry-serve-") as scratch:
        batches = Batcher(answerer, _seconds, count=BATCH, load=BATCH_SECONDS)
        try:
            yield Gate(_app(answerer, batches, access, limits, Path(scratch)), access, limits)
        finally:
            batches.close()


def _seconds(question: Question) -> float:
    return question.seconds


def _app(
    answerer: Answerer, batches: Batcher[Question, Any], access: Access, limits: Limits, at: Path
) -> FastAPI:
    app = FastAPI(title="heronry", version="1", description=ABOUT, docs_url=None, redoc_url=None)
    answer_problems(app)
    for path, (kind, content) in page_files().items():
        app.api_route(path, methods=["GET", "HEAD"], include_in_schema=False)(_file(kind, content))
    # The gate compares tokens; this only documents that it does.
    security = [] if access.token is None else [Depends(HTTPBearer(auto_error=False))]
    api = APIRouter(prefix=API.rstrip("/"), dependencies=security, responses=documented(*ALWAYS))
    described = _described(answerer, limits)

    @api.get("/model")
    async def model() -> Served:
        """The model, and what may be asked of it."""
        return described

    columns = Columns.of(answerer.model.run, recognised=answerer.recogniser is not None)

    @api.post("/predict", response_model=answer_model(columns), responses=documented(*ASKED))
    async def predict(
        request: Request,
        audio: Sound = None,
        text: Text = None,
        asr: Heard = None,
        recognise: Recognise = False,  # noqa: FBT002  a field of a form
        window: Window = WINDOW_SECONDS,
    ) -> Any:
        """Predict a clip, a clip with its words, or words alone."""
        _check(audio, text or asr, answerer, recognise=recognise)
        with tempfile.TemporaryDirectory(dir=at) as folder:
            place, seconds = None, 0.0
            if audio is not None:
                place = Path(folder) / "clip"
                seconds = await run_in_threadpool(keep, audio.file, place, limits)
            question = Question(place, seconds, text, asr, recognise, window)
            answer = await _while_connected(request, batches.ask(question))
            clip = None
            if place is not None:
                clip = await run_in_threadpool(drawn, place, seconds, answer.pitch)
            return {"rows": answer.rows, "clip": clip}

    app.include_router(api)
    return app


async def _while_connected(request: Request, future: Future[A]) -> A:
    """Result of a future, which is cancelled if its client leaves before it is computed.

    Args:
        request: A request whose body has been read.
        future: The future.

    Raises:
        CancelledError: If the client has left, or the server ends.
    """

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answer, leaving = asyncio.wrap_future(future), asyncio.create_task(left())
    both: set[asyncio.Future[Any]] = {answer, leaving}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            future.cancel()  # one that is being computed is not: it reads the clip to its end
        return await answer
    finally:
        leaving.cancel()
        future.cancel()


def _file(kind: str, content: bytes) -> Any:
    async def file() -> Response:
        return Response(content, media_type=kind)

    return file


def _described(answerer: Answerer, limits: Limits) -> Served:
    model = answerer.model
    head = read_head(model.run.path)
    return Served(
        name=str(head["fusion"]),
        corpus=str(head["corpus"]),
        models=[each.name for each in model.run.models],
        classes=model.classes,
        attributes={name: [*ends] for name, ends in model.attributes.items()},
        slots={**model.reads},
        required=[] if model.run.drops else sorted(set(model.reads.values())),
        recognises=answerer.recogniser is not None,
        megabytes=limits.megabytes,
        seconds=limits.seconds,
        window=WINDOW_SECONDS,
        characters=CHARACTERS,
    )


def _check(
    audio: UploadFile | None, words: str | None, answerer: Answerer, *, recognise: bool
) -> None:
    if audio is None and words is None:
        raise Refused(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "neither a clip nor words",
            "`audio`, `text`, or both",
            "send one of them",
        )
    if recognise and answerer.recogniser is None:
        raise Refused(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "`recognise`, by a server that recognises no words",
            "the words themselves, or none",
            "send them as `text`, or start the server with `--transcribe`",
        )
