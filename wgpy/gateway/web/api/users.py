"""Users."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from wgpy.gateway.policy import people
from wgpy.gateway.store import paging, users
from wgpy.gateway.web.api.access import READ, WRITE, changing, keep_administrator, keep_administrators, reading
from wgpy.gateway.web.api.models import Input, Moment, Number, Output, Page, Size, Text, expiry, page

router: APIRouter = APIRouter()


class User(Output):
    """Somebody who has devices."""

    name: str
    source: str = Field(description="The directory that the user comes from, or local.")
    subject: str | None = Field(description="What the directory calls the user and never gives to another.")
    display_name: str
    email: str
    groups: list[str]
    enabled: bool
    suspended: bool = Field(description="Whether the directory has disabled or removed the user.")
    expires: float | None = Field(description="When the user loses access; null for never.")
    expired: bool = Field(description="Whether that moment has passed, whatever the date was set to since.")


class NewUser(Input):
    """A user to add."""

    name: str = Field(examples=["alice", "alice@example.org"])
    groups: list[str] = Field(default=[])
    expires: Moment | str | None = Field(default=None, description="A moment, or the last day, such as 2026-12-31.")


class UserChange(Input):
    """What to change of a user."""

    groups: list[str] = Field(default=[], description="All groups that the user is in.")
    expires: Moment | str | None = Field(default=None, description="A moment or a last day; null for never.")
    enabled: bool = Field(default=True, description="False ends the user's sessions, and none begins.")


@router.get("/users", response_model=Page[User], dependencies=[READ])
def find_all(
    request: Request, page_number: Number = 1, size: Size = paging.SIZE, text: Text = "", group: Text = ""
) -> Any:
    """Users, by name; of one group, if it is given."""
    with reading(request) as connection:
        return page(users.page(connection, page_number, text, group, size=size))


@router.post("/users", response_model=User, status_code=201, dependencies=[WRITE])
def add(request: Request, body: NewUser) -> Any:
    """Add a user; an administrator only at the unix socket."""
    user = people.User(name=body.name, groups=frozenset(body.groups), expires=expiry(body.expires))
    keep_administrators(request, f"user {user.name}", user.groups)
    with changing(request) as change:
        users.add(change, user)
    return user.json()


@router.get("/users/{name}", response_model=User, dependencies=[READ])
def find(request: Request, name: str) -> Any:
    """One user."""
    with reading(request) as connection:
        return users.find(connection, name).json()


@router.patch("/users/{name}", response_model=User, dependencies=[WRITE])
def change(request: Request, name: str, body: UserChange) -> Any:
    """Change a user; sessions are held to it at once. Administrators only at the unix socket."""
    given = body.given()
    if "groups" in given:
        given["groups"] = frozenset(body.groups)
    if "expires" in given:  # a new date is a new decision; a date that is over expires the user again
        given |= {"expires": expiry(body.expires), "expired": False}
    with changing(request) as changed:
        before = users.find(changed.connection, name)
        user = replace(before, **given)
        keep_administrators(request, f"user {name}", before.groups, user.groups)
        users.replace(changed, user)
    return user.json()


@router.delete("/users/{name}", status_code=204, dependencies=[WRITE])
def remove(request: Request, name: str) -> None:
    """Remove a user with all devices; an administrator only at the unix socket."""
    with changing(request) as change:
        keep_administrator(request, change.connection, name)
        users.remove(change, name)
