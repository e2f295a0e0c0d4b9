"""Everything that the gateway knows at one moment, and what follows from it for a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network

from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.status import DeviceStatus
from wgpy.gateway.policy.compiler import Compiled, compiled
from wgpy.gateway.policy.destinations import Address
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.policy.people import Device, User
from wgpy.gateway.policy.routes import Route
from wgpy.gateway.policy.rules import Rule
from wgpy.gateway.policy.sessions import Reason, Terms
from wgpy.keys import PresharedKey, PrivateKey, PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A state of the store."""

    endpoint: Endpoint
    private_key: PrivateKey
    users: Mapping[str, User]
    devices: Mapping[str, Device]
    preshared_keys: Mapping[PublicKey, PresharedKey]
    routes: Sequence[Route]
    rules: Sequence[Rule]

    def compile(self) -> Compiled:
        """The authorization rules for the devices that may have a session."""
        members = {
            address: self.users[device.user].groups
            for device in self.devices.values()
            if self._is_enabled(device)
            for address in device.addresses
        }
        return compiled(self.rules, members)

    def with_sign_ins(self, signed_in: Mapping[str, float | None]) -> Policy:
        """This policy, but for when the users of some devices last proved who they are."""
        changed = {name: replace(self.devices[name], signed_in_at=at) for name, at in signed_in.items()}
        return replace(self, devices={**self.devices, **changed}) if changed else self

    def has_same_devices(self, other: Policy) -> bool:
        """Whether the devices are those of another policy, but perhaps for sign-ins, which change no key or address."""
        return self.preshared_keys is other.preshared_keys

    def newly_expired(self, wall: float) -> bool:
        """Whether somebody's access has run out, and the store does not know it yet."""
        return any(user.is_expired(wall) and not user.expired for user in self.users.values())

    def by_address(self) -> dict[Address, Device]:
        """Whose each address is."""
        return {address: device for device in self.devices.values() for address in device.addresses}

    def terms(self, name: str, signed_in_at: float | None, access_until: float, wall: float) -> Terms:
        """What a device's session is held to: two times in the sessions' clock, and `wall` in seconds since 1970."""
        device = self.devices.get(name)
        return Terms(
            addresses=device.addresses if device else (),
            session_max=self.endpoint.session_max,
            idle_max=self.endpoint.idle_max,
            ask_handler=bool(self.endpoint.handler),
            refusal=self._refusal(device, wall),
            signed_in_at=signed_in_at if self.endpoint.sign_in else None,
            access_until=access_until,
        )

    def _refusal(self, device: Device | None, wall: float) -> Reason | None:
        if device is None:
            return Reason.DEVICE_REMOVED
        user = self.users[device.user]
        if not user.is_allowed:
            return Reason.USER_DISABLED
        if user.is_expired(wall):
            return Reason.USER_EXPIRED
        if not device.enabled:
            return Reason.DEVICE_DISABLED
        if device.certificate:
            return Reason.CERTIFICATE
        if self.endpoint.sign_in and device.signed_in_at is None:
            return Reason.NOT_SIGNED_IN
        return None

    def _is_enabled(self, device: Device) -> bool:
        user = self.users[device.user]
        return device.enabled and user.is_allowed and not user.expired

    def change_of(self, status: DeviceStatus) -> DeviceChange | None:
        """What to change of an interface so that its peers are the enabled devices; None if nothing."""
        present = {peer.public_key: peer for peer in status.peers}
        wanted = {device.public_key: device for device in self.devices.values() if self._is_enabled(device)}
        peers = [PeerChange(public_key=key, remove=True) for key in present if key not in wanted]
        for key, device in wanted.items():
            networks = [AllowedIPChange(ip_network(address)) for address in device.addresses]
            psk, peer = self.preshared_keys[key], present.get(key)
            shown = None if psk.is_zero() else psk
            if (
                peer is None
                or peer.preshared_key != shown
                or {*peer.allowed_ips} != {each.network for each in networks}
            ):
                peers.append(
                    PeerChange(public_key=key, preshared_key=psk, replace_allowed_ips=True, allowed_ips=tuple(networks))
                )
        change = DeviceChange(
            private_key=None if status.private_key == self.private_key else self.private_key,
            listen_port=None if status.listen_port == self.endpoint.port else self.endpoint.port,
            peers=tuple(peers),
        )
        return None if change == DeviceChange() else change
