"""What the server sends, for the OpenAPI document: a model's description, rows and clips."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, WithJsonSchema, create_model

from pipeline.predict.records import LISTS, TEXTS, Columns, Record
from pipeline.serve.clips import Clip

ROW = "As a line of `heronry predict --jsonl`; unknown is null, and `error` says why."


class Served(BaseModel):
    """The model, and what may be asked of it."""

    name: str = Field(description="Name of the fusion.")
    corpus: str = Field(description="Corpus that it was trained on.")
    models: list[str] = Field(description="Seeds and folds whose answers are averaged.")
    classes: list[str] = Field(description="Classes; none of a model that learns none.")
    attributes: dict[str, list[float]] = Field(description="Lowest and highest value by attribute.")
    slots: dict[str, str] = Field(description="What each slot reads: audio, text or asr.")
    required: list[str] = Field(description="What each clip must have.")
    recognises: bool = Field(description="Whether the server recognises words.")
    megabytes: float = Field(description="Most bytes of a clip, in 10^6.")
    seconds: float = Field(description="Longest clip.")
    window: float = Field(description="Longest piece of a clip without words, in seconds.")
    characters: int = Field(description="Most characters of words.")


def answer_model(columns: Columns) -> type[BaseModel]:
    """Model of an answer, whose rows have these columns."""
    rows = Annotated[list[Record], WithJsonSchema({"type": "array", "items": row_schema(columns)})]
    fields: dict[str, Any] = {
        "rows": (rows, Field(description=ROW)),
        "clip": (Clip | None, Field(description="Waveform and pitch; null for words alone.")),
    }
    return create_model("Answered", __doc__="The model's answer.", **fields)


def row_schema(columns: Columns) -> dict[str, Any]:
    """JSON schema of a row."""
    texts = {*TEXTS, *(columns.without(s)[0] for s in columns.slots if columns.outputs.classes)}

    def kind(name: str) -> dict[str, Any]:
        if name in LISTS:
            item = "number" if name == "temperatures" else "string"
            return {"type": ["array", "null"], "items": {"type": item}}
        if name == "turn":
            return {"type": ["integer", "null"]}
        return {"type": ["string" if name in texts else "number", "null"]}

    names = columns.names
    return {
        "type": "object",
        "properties": {name: kind(name) for name in names},
        "required": names,
        "additionalProperties": False,
    }
