"""Directories: where people come from that are not kept here."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from sqlalchemy import Connection

from wgpy.gateway.identity import directory as identity
from wgpy.gateway.identity.administration import check_kept, directory_settings
from wgpy.gateway.policy import directories as policy
from wgpy.gateway.store import directories, users
from wgpy.gateway.web.api.access import READ, WRITE, changing, keep_administrators, reading
from wgpy.gateway.web.api.models import Input, Output
from wgpy.gateway.web.site import site_of

router: APIRouter = APIRouter()


class GroupMapping(Output):
    """Which of our groups a directory's groups are."""

    names: dict[str, str] = Field(default={}, description="Our group by the directory's.")
    prefix: str | None = Field(
        default=None, description='A group called this and then as one of ours is that one; "" for the same name.'
    )


class Directory(Output):
    """A provider of OpenID Connect, or a server of LDAP."""

    name: str
    kind: str
    settings: dict[str, Any] = Field(description="Those of its kind, without its secret.")
    groups: GroupMapping
    grace: int = Field(description="Seconds for which sessions go on while the directory cannot be asked.")


class NewGroupMapping(Input):
    """Which of our groups a directory's groups are."""

    names: dict[str, str] = Field(default={})
    prefix: str | None = None


class NewDirectory(Input):
    """A directory to add."""

    name: str
    kind: str = Field(examples=["oidc", "ldap"])
    settings: dict[str, Any] = Field(
        examples=[{"issuer": "https://id.example.org", "client_id": "vpn"}],
        description="Those of its kind, with the names that `wgpy gateway directory show --json` gives them.",
    )
    secret: str = Field(default="", description="The client's secret, or the password of the account that searches.")
    groups: NewGroupMapping = NewGroupMapping()
    grace: int = policy.GRACE

    @classmethod
    def lines(cls) -> tuple[str, ...]:
        return ("settings",)  # certificates have lines


class DirectoryChange(Input):
    """What to change of a directory."""

    settings: dict[str, Any] = Field(
        default={},
        description="Settings to change. With one that says who gets the secret, such as `issuer` or `servers`, the "
        "secret has to be given.",
    )
    secret: str = ""
    groups: NewGroupMapping = NewGroupMapping()
    grace: int = 0

    @classmethod
    def lines(cls) -> tuple[str, ...]:
        return ("settings",)


class Removed(Output):
    """What is gone."""

    users: list[str] = Field(description="The users that were removed with the directory.")


@router.get("/directories", response_model=list[Directory], dependencies=[READ])
def find_all(request: Request) -> Any:
    """All directories, without their secrets."""
    with reading(request) as connection:
        return [directory.json() for directory in directories.find_all(connection)]


@router.post("/directories", response_model=Directory, status_code=201, dependencies=[WRITE])
def add(request: Request, body: NewDirectory) -> Any:
    """Add a directory."""
    made = policy.Directory(
        name=body.name,
        kind=body.kind,
        settings=directory_settings(body.kind, body.settings),
        groups=policy.GroupMapping(names=body.groups.names, prefix=body.groups.prefix),
        grace=body.grace,
    )
    with changing(request) as change:
        _keep_administrators(request, change.connection, made)
        directories.add(change, made, body.secret.encode())
    return made.json()


@router.get("/directories/{name}", response_model=Directory, dependencies=[READ])
def find(request: Request, name: str) -> Any:
    """One directory, without its secret."""
    with reading(request) as connection:
        return directories.find(connection, name).json()


@router.patch("/directories/{name}", response_model=Directory, dependencies=[WRITE])
def change(request: Request, name: str, body: DirectoryChange) -> Any:
    """Change a directory."""
    given = body.given()
    secret = given.pop("secret", None)
    if "groups" in given:
        given["groups"] = policy.GroupMapping(names=body.groups.names, prefix=body.groups.prefix)
    with changing(request) as changed:
        before = directories.find(changed.connection, name)
        if "settings" in given:
            given["settings"] = directory_settings(before.kind, {**before.settings, **body.settings})
        after = replace(before, **given)
        _keep_administrators(request, changed.connection, before, after)
        if secret is None:
            check_kept(before, after)
        directories.replace(changed, after, None if secret is None else secret.encode())
    return after.json()


@router.post("/directories/{name}/check", response_model=dict[str, Any], dependencies=[WRITE])
def check(request: Request, name: str) -> Any:
    """Ask a directory whether it can be used as it is set: what it says of itself."""
    with reading(request) as connection:
        directory = directories.find(connection, name)
        secret = directories.secret(connection, site_of(request).database.vault, name)
    return identity.check(directory, secret)


@router.delete("/directories/{name}", response_model=Removed, dependencies=[WRITE])
def remove(
    request: Request,
    name: str,
    with_users: Annotated[bool, Query(description="Also remove the users that come from it.")] = False,
) -> Any:
    """Remove a directory; one that has administrators only at the unix socket."""
    with changing(request) as change:
        _keep_administrators(request, change.connection, directories.find(change.connection, name))
        return {"users": directories.remove(change, name, with_users=with_users)}


def _keep_administrators(request: Request, connection: Connection, *each: policy.Directory) -> None:
    """Refuse a token that would change a directory from which administrators come, or may come."""
    admins = site_of(request).service.endpoint.admin_group
    for directory in each:
        theirs = {*directory.groups.names, (directory.groups.prefix or "") + admins}
        present = users.page(connection, 1, group=admins, source=directory.name, size=1).rows
        keep_administrators(
            request, f"directory {directory.name}", directory.groups.ours(theirs, {admins}),
            *(user.groups for user in present),
        )  # fmt: skip
