"""Sessions that are under way."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from wgpy.gateway.store import paging, sessions
from wgpy.gateway.web.api.access import READ, SIGN_IN, changing, reading
from wgpy.gateway.web.api.logs import Connection
from wgpy.gateway.web.api.models import Number, Output, Page, Size, Text, page

router: APIRouter = APIRouter()


class Session(Connection):
    """A session that is under way, with its entry of the connection log."""

    id: str


class Terminated(Output):
    """What was ended."""

    terminated: list[str] = Field(description="The ids of the sessions.")


@router.get("/sessions", response_model=Page[Session], dependencies=[READ])
def find_all(
    request: Request,
    page_number: Number = 1,
    size: Size = paging.SIZE,
    text: Text = "",
    user: Text = "",
    device: Text = "",
) -> Any:
    """Sessions that are under way, the newest first; of one user or one device, if it is given."""
    with reading(request) as connection:
        found = sessions.page_under_way(connection, page_number, text, user=user, device=device, size=size)
    answer = page(found)
    return {**answer, "items": [{"id": row["id"], **row["entry"]} for row in answer["items"]]}


@router.get("/sessions/{name}", response_model=Session, dependencies=[READ])
def find(request: Request, name: str) -> Any:
    """One session, by its id."""
    with reading(request) as connection:
        return {"id": name, **sessions.find_under_way(connection, name)}


@router.post("/sessions/{name}/terminate", response_model=Terminated, dependencies=[SIGN_IN])
def terminate(request: Request, name: str) -> Any:
    """End a session, or all of a device or user: traffic stops within a second.

    Where people sign in, they have to do so again. Where a key is enough, the device may connect at once again.
    """
    with changing(request) as change:
        return {"terminated": sessions.terminate(change, name)}
