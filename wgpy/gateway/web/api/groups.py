"""Groups."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from wgpy.gateway.policy import people
from wgpy.gateway.store import groups, paging
from wgpy.gateway.web.api.access import READ, WRITE, changing, keep_administrators, reading
from wgpy.gateway.web.api.models import Input, Number, Output, Page, Size, Text, page

router: APIRouter = APIRouter()


class Group(Output):
    """A name that rules are made for."""

    name: str
    description: str


class NewGroup(Input):
    """A group to add."""

    name: str
    description: str = ""


class GroupChange(Input):
    """What to change of a group."""

    description: str = Field(description="Who is in it.")


@router.get("/groups", response_model=Page[Group], dependencies=[READ])
def find_all(request: Request, page_number: Number = 1, size: Size = paging.SIZE, text: Text = "") -> Any:
    """Groups, by name."""
    with reading(request) as connection:
        return page(groups.page(connection, page_number, text, size=size))


@router.post("/groups", response_model=Group, status_code=201, dependencies=[WRITE])
def add(request: Request, body: NewGroup) -> Any:
    """Add a group."""
    group = people.Group(name=body.name, description=body.description)
    keep_administrators(request, f"group {group.name}", [group.name])  # a directory may have people for it
    with changing(request) as change:
        groups.add(change, group)
    return group.json()


@router.get("/groups/{name}", response_model=Group, dependencies=[READ])
def find(request: Request, name: str) -> Any:
    """One group."""
    with reading(request) as connection:
        return groups.find(connection, name).json()


@router.patch("/groups/{name}", response_model=Group, dependencies=[WRITE])
def change(request: Request, name: str, body: GroupChange) -> Any:
    """Change a group's description."""
    group = people.Group(name=name, description=body.description)
    with changing(request) as changed:
        groups.replace(changed, group)
    return group.json()


@router.delete("/groups/{name}", status_code=204, dependencies=[WRITE])
def remove(request: Request, name: str) -> None:
    """Remove a group that no user is in, no rule is for and no directory has."""
    keep_administrators(request, f"group {name}", [name])
    with changing(request) as change:
        groups.remove(change, name)
