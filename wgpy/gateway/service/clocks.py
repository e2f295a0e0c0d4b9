"""Moments of the date in the clock of sessions, which no change of the date moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Final

from wgpy.gateway.policy.people import Device
from wgpy.gateway.policy.sessions import Reason, Terms
from wgpy.gateway.policy.snapshot import Policy

SKEW: Final = 60.0  # seconds that a sign-in may be ahead of the date
SLACK: Final = 1.0  # seconds by which the two clocks may drift before a session's end is moved


class Clocks:
    """Both clocks, in seconds: `clock` is CLOCK_BOOTTIME, `wall` the time since 1970."""

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._clock, self._wall = clock, wall
        self._signed_in: dict[tuple[str, float], float] = {}  # by device and wall-clock time, in `clock`
        self._access: dict[tuple[str, float], float] = {}  # by user and wall-clock time, in `clock`

    def terms(self, policy: Policy, name: str, user: str | None = None) -> Terms:
        """What a policy says about a device now. For a session of `user`, it is over if the device is another's now."""
        device = policy.devices.get(name)
        signed_in = None
        if device and device.signed_in_at is not None:  # converted once, so that no change of the date moves it
            key = (name, device.signed_in_at)
            if key not in self._signed_in:
                age = self._wall() - device.signed_in_at
                # After the date was set back, nobody knows how long ago that was: then they have to sign in again.
                self._signed_in[key] = self._clock() - max(0.0, age) if age > -SKEW else -inf
            signed_in = self._signed_in[key]
        terms = policy.terms(name, signed_in, self._access_until(policy, device), self._wall())
        is_others = device is not None and user not in (None, device.user)
        return replace(terms, refusal=Reason.DEVICE_REMOVED) if is_others else terms

    def _access_until(self, policy: Policy, device: Device | None) -> float:
        """When a device's user loses access, in `clock`. No change of the date makes that later."""
        expires = policy.users[device.user].expires if device else None
        if device is None or expires is None:
            return inf
        key, until = (device.user, expires), self._clock() + expires - self._wall()
        if until < self._access.get(key, inf) - SLACK:
            self._access[key] = until
        return self._access[key]
