"""Devices."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from wgpy.gateway.policy import texts
from wgpy.gateway.store import devices, enrolment, paging
from wgpy.gateway.web.api.access import READ, SIGN_IN, WRITE, changing, reading
from wgpy.gateway.web.api.models import Input, Number, Output, Page, Size, Text, page
from wgpy.keys import PublicKey

router: APIRouter = APIRouter()


class Device(Output):
    """A key of a user, with its addresses."""

    name: str
    user: str
    public_key: str
    addresses: list[str]
    enabled: bool
    signed_in_at: float | None = Field(description="When its user last proved who they are; null for never.")
    certificate: str | None = Field(description="Why its certificate is not accepted; empty if it is, null for none.")


class Enrolled(Device):
    """A device that was just added."""

    file: str = Field(description="The file for its WireGuard app. Its secrets cannot be found again.")


class NewDevice(Input):
    """A device to add."""

    name: str
    user: str
    public_key: str | None = Field(
        default=None,
        description="The key that its owner made; null for one that is made here, and is in the file only.",
    )
    addresses: list[str] = Field(default=[], description="Fixed addresses from the pools.")


class DeviceChange(Input):
    """What to change of a device."""

    enabled: bool = Field(description="False ends the device's session, and none begins.")


@router.get("/devices", response_model=Page[Device], dependencies=[READ])
def find_all(
    request: Request, page_number: Number = 1, size: Size = paging.SIZE, text: Text = "", user: Text = ""
) -> Any:
    """Devices, by name; of one user, if it is given."""
    with reading(request) as connection:
        return page(devices.page(connection, page_number, text, user, size=size))


@router.post("/devices", response_model=Enrolled, status_code=201, dependencies=[WRITE])
def add(request: Request, body: NewDevice) -> Any:
    """Add a device."""
    key = None if body.public_key is None else PublicKey.from_base64(body.public_key)
    static = [texts.address("address", text) for text in body.addresses]
    with changing(request) as change:
        device, file = enrolment.enrol(change, body.name, body.user, key, static)
    return {**device.json(), "file": file}


@router.get("/devices/{name}", response_model=Device, dependencies=[READ])
def find(request: Request, name: str) -> Any:
    """One device."""
    with reading(request) as connection:
        return devices.find(connection, name).json()


@router.patch("/devices/{name}", response_model=Device, dependencies=[WRITE])
def change(request: Request, name: str, body: DeviceChange) -> Any:
    """Enable or disable a device."""
    with changing(request) as changed:
        devices.enable(changed, name, enabled=body.enabled)
        return devices.find(changed.connection, name).json()


@router.post("/devices/{name}/sign-in", response_model=Device, dependencies=[SIGN_IN])
def sign_in(request: Request, name: str) -> Any:
    """Confirm that the device's user is who they say: a session may begin."""
    with changing(request) as changed:
        devices.sign_in(changed, name)
        return devices.find(changed.connection, name).json()


@router.delete("/devices/{name}", status_code=204, dependencies=[WRITE])
def remove(request: Request, name: str) -> None:
    """Remove a device; its key gets the same addresses if it comes back."""
    with changing(request) as change:
        devices.remove(change, name)
