"""Everything at once: export, import and backup. What replaces everything, restore, is for the command line only."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, Final

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from wgpy.gateway.store import transfer
from wgpy.gateway.web.api.access import BACKUP, READ, WRITE, changing, reading, require_here
from wgpy.gateway.web.api.models import Input, Output
from wgpy.gateway.web.site import site_of

router: APIRouter = APIRouter()

LONGEST_FILE: Final = 256 << 10  # characters; some thousand peers, which are taken over in a few seconds
_NAME: Final = "gateway-backup.db"
_PIECE: Final = 256 << 10  # bytes
_one: Final = Lock()  # a backup at a time


class ForeignFile(Input):
    """Another gateway's wg-quick file."""

    text: str = Field(max_length=LONGEST_FILE, description="All of the file, with its private key.")
    groups: list[str] = Field(default=[], description="Groups that the users are in.")

    @classmethod
    def lines(cls) -> tuple[str, ...]:
        return ("text",)


class TakenOver(Output):
    """Who was taken over."""

    users: list[str]
    devices: list[str]


@router.get("/export", response_model=dict[str, Any], dependencies=[READ])
def export(request: Request) -> Any:
    """All objects, without any secret key."""
    with reading(request) as connection:
        return transfer.everything(connection)


@router.post("/import", response_model=TakenOver, status_code=201, dependencies=[WRITE])
def take_over(request: Request, body: ForeignFile) -> Any:
    """Make a user and a device of each peer of a wg-quick file, whose private key and port become the gateway's.

    Only at the unix socket: who chooses the private key can pretend to be the gateway. Larger files than this takes
    are for `wgpy gateway import`.
    """
    require_here(request, "import")
    with changing(request) as change:
        names = transfer.take_over(change, "text", body.text, body.groups)
    return {"users": names, "devices": names}


@router.get(
    "/backup",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}, "description": "The file."}},
    dependencies=[BACKUP],
)
def backup(request: Request) -> Response:
    """A copy of the database, as `wgpy gateway backup` writes it, for `wgpy gateway restore`. The key is not in it."""
    if not _one.acquire(blocking=False):
        raise HTTPException(409, "another backup is being made; try again in a moment")
    try:
        with tempfile.TemporaryDirectory(prefix="wgpy-backup-") as directory:
            path = Path(directory) / "gateway.db"
            site_of(request).database.backup(path)
            with changing(request) as change:
                change.record("backup", _NAME, None, {"downloaded": True})
            file = path.open("rb")  # which nobody else can open any more
            size = path.stat().st_size
    finally:
        _one.release()
    headers = {"Content-Length": str(size), "Content-Disposition": f'attachment; filename="{_NAME}"'}
    return StreamingResponse(_pieces(file), headers=headers, media_type="application/octet-stream")


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE):
            yield piece
