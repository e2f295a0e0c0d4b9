"""Backup, export, and import of another gateway's clients."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from starlette.responses import Response

from wgpy.errors import WgpyError
from wgpy.gateway.store import groups, transfer
from wgpy.gateway.web.console.visit import Visit, action, page


def _show(visit: Visit, error: WgpyError | None = None) -> Response:
    with visit.reading() as connection:
        every = groups.find_all(connection)
    values = {"text": "" if error is None else visit.form.text("text"), "groups": visit.form.groups()}
    return visit.show("transfer.html", error, groups=every, values=values)


def _backup(visit: Visit) -> Response:
    name = f"gateway-{datetime.fromtimestamp(visit.wall, UTC):%Y-%m-%d-%H%M%S}.backup"
    with visit.changing() as change:
        change.record("backup", name, None, {"downloaded": True})
    with TemporaryDirectory() as directory:
        path = Path(directory) / name
        visit.database.backup(path)
        content = path.read_bytes()
    return _file(content, name, "application/octet-stream")


def _export(visit: Visit) -> Response:
    with visit.reading() as connection:
        everything = transfer.everything(connection)
    return _file(json.dumps(everything, indent=2).encode(), "gateway.json", "application/json")


def _import(visit: Visit) -> Response:
    try:
        with visit.changing() as change:
            names = transfer.take_over(change, "the file", visit.form.text("text") + "\n", visit.form.groups())
    except WgpyError as error:
        return _show(visit, error)
    said = (
        f"{len(names)} clients taken over. Take the other interface down, and restart the gateway if its port changed."
    )
    return visit.done("/users", said)


def _file(content: bytes, name: str, kind: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, headers=headers, media_type=kind)


ROUTES: Final = (
    page("/transfer", _show),
    action("/transfer/backup", _backup, fresh=True),
    page("/transfer/export", _export),
    action("/transfer/import", _import, fresh=True),  # whose private key becomes the gateway's
)
