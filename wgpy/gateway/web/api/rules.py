"""Authorization rules, and which of them decides."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field

from wgpy.gateway.policy.destinations import Destination
from wgpy.gateway.policy.rules import Rule as Value
from wgpy.gateway.policy.tester import judge
from wgpy.gateway.store import paging, rules, users
from wgpy.gateway.web.api.access import READ, WRITE, changing, reading
from wgpy.gateway.web.api.models import Input, Number, Output, Page, Size, Text, page
from wgpy.gateway.web.site import site_of

router: APIRouter = APIRouter()


class Rule(Output):
    """Allows groups, or everyone, to reach a destination."""

    name: str
    destination: str
    groups: list[str]
    everyone: bool


class NewRule(Input):
    """A rule to add."""

    name: str
    destination: str = Field(examples=["10.0.0.0/8", "192.168.1.5:443/tcp", "[2001:db8::/32]:443/udp"])
    groups: list[str] = Field(default=[], description="The groups that it is for.")
    everyone: bool = Field(default=False, description="Whether it is for all users.")


class RuleChange(Input):
    """What to change of a rule. `groups` or `everyone` replace all that the rule was for."""

    destination: str = ""
    groups: list[str] = Field(default=[])
    everyone: bool = False


class Verdict(Output):
    """Whether a user may reach a destination, and why."""

    allowed: bool
    prefix: str | None = Field(description="The prefix that decides; null if no rule's contains the destination.")
    rule: str | None = Field(description="The rule that allows it.")
    why: str
    enabled: bool = Field(description="Whether the user is enabled, without which nothing is reached.")
    expired: bool


@router.get("/rules", response_model=Page[Rule], dependencies=[READ])
def find_all(request: Request, page_number: Number = 1, size: Size = paging.SIZE, text: Text = "") -> Any:
    """Rules, by name."""
    with reading(request) as connection:
        return page(rules.page(connection, page_number, text, size=size))


@router.post("/rules", response_model=Rule, status_code=201, dependencies=[WRITE])
def add(request: Request, body: NewRule) -> Any:
    """Add a rule. The most specific prefix that contains a destination decides alone."""
    rule = Value(
        name=body.name,
        destination=Destination.parse(body.destination),
        groups=frozenset(body.groups),
        everyone=body.everyone,
    )
    with changing(request) as change:
        rules.add(change, rule)
    return rule.json()


@router.get("/rules/{name}", response_model=Rule, dependencies=[READ])
def find(request: Request, name: str) -> Any:
    """One rule."""
    with reading(request) as connection:
        return rules.find(connection, name).json()


@router.patch("/rules/{name}", response_model=Rule, dependencies=[WRITE])
def change(request: Request, name: str, body: RuleChange) -> Any:
    """Change a rule; connections that it allows no more are cut."""
    given: dict[str, Any] = {}
    if "destination" in body.model_fields_set:
        given["destination"] = Destination.parse(body.destination)
    if body.model_fields_set & {"groups", "everyone"}:
        given |= {"groups": frozenset(body.groups), "everyone": body.everyone}
    with changing(request) as changed:
        rule = replace(rules.find(changed.connection, name), **given)
        rules.replace(changed, rule)
    return rule.json()


@router.delete("/rules/{name}", status_code=204, dependencies=[WRITE])
def remove(request: Request, name: str) -> None:
    """Remove a rule; connections that it allowed are cut."""
    with changing(request) as change:
        rules.remove(change, name)


@router.get("/test", response_model=Verdict, dependencies=[READ])
def test(
    request: Request,
    user: Annotated[str, Query(description="The user's name.")],
    destination: Annotated[str, Query(description="An address, perhaps with a port, such as 10.0.1.5:443/tcp.")],
) -> Any:
    """Say whether a user may reach a destination, and which rule decides."""
    with reading(request) as connection:
        found, every = users.find(connection, user), rules.find_all(connection)
    return judge(every, found, destination, site_of(request).wall()).json()
