"""Writing and reading the userspace API undo each other, and no text makes a reader raise anything but UapiError."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgpy.config.uapi import (
    _GET_PEER,
    _SET_DEVICE,
    _SET_PEER,
    UapiError,
    format_set,
    format_status,
    parse_set,
    parse_status,
)
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.effects import DropReason
from wgpy.device.status import DeviceStatus, PeerStatus
from wgpy.endpoint import Endpoint
from wgpy.keys import PresharedKey, PrivateKey, PublicKey

key_bytes = st.binary(min_size=32, max_size=32)
sixteen = st.integers(0, 0xFFFF)
thirty_two = st.integers(0, 0xFFFFFFFF)
sixty_four = st.integers(0, 2**64 - 1)
public_keys = st.builds(PublicKey, key_bytes)
networks = st.one_of(
    st.tuples(thirty_two, st.integers(0, 32)).map(lambda prefix: IPv4Network(prefix, strict=False)),
    st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 128)).map(lambda prefix: IPv6Network(prefix, strict=False)),
)
endpoints = st.one_of(
    st.tuples(st.ip_addresses(v=4).map(str), sixteen),
    st.tuples(st.ip_addresses(v=6).map(str), sixteen, thirty_two),
).map(lambda remote: Endpoint(*remote))
peer_changes = st.one_of(
    st.builds(PeerChange, public_key=public_keys, remove=st.just(True)),
    st.builds(
        PeerChange,
        public_key=public_keys,
        update_only=st.booleans(),
        preshared_key=st.none() | st.builds(PresharedKey, key_bytes),
        endpoint=st.none() | endpoints,
        persistent_keepalive=st.none() | sixteen,
        replace_allowed_ips=st.booleans(),
        allowed_ips=st.lists(st.builds(AllowedIPChange, networks, st.booleans()), max_size=4).map(tuple),
    ),
)
changes = st.builds(
    DeviceChange,
    private_key=st.none() | st.builds(PrivateKey, key_bytes),
    listen_port=st.none() | sixteen,
    fwmark=st.none() | thirty_two,
    replace_peers=st.booleans(),
    peers=st.lists(peer_changes, max_size=4).map(tuple),
)
drops = st.dictionaries(st.sampled_from(DropReason).map(str), st.integers(1, 2**40), max_size=3)
peer_statuses = st.builds(
    PeerStatus,
    public_key=public_keys,
    preshared_key=st.none() | st.builds(PresharedKey, key_bytes.filter(any)),
    endpoint=st.none() | endpoints,
    allowed_ips=st.lists(networks, max_size=4).map(tuple),
    last_handshake_ns=sixty_four,
    tx_bytes=sixty_four,
    rx_bytes=sixty_four,
    persistent_keepalive=sixteen,
    drops=drops,
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
private_keys = st.none() | st.builds(PrivateKey, key_bytes.filter(any))
statuses = st.builds(
    lambda private_key, listen_port, fwmark, peers: DeviceStatus(
        private_key=private_key,
        public_key=private_key.public_key if private_key else None,
        listen_port=listen_port,
        fwmark=fwmark,
        peers=peers,
    ),
    private_keys,
    sixteen,
    thirty_two,
    st.lists(peer_statuses, max_size=4).map(tuple),
)
keys = st.sampled_from([*_SET_DEVICE, *_SET_PEER, *_GET_PEER, "errno"])
tricky = ["true", "1", "0", "[::%x]:1", "[::1]:1", "1.2.3.4:5", "1.2.3.4/5", "-::/0", "ab" * 32, "9" * 5000]
values = st.text() | st.sampled_from(tricky) | endpoints.map(str) | networks.map(str)
any_lines = st.lists(st.text() | st.builds("{}={}".format, keys, values))


@given(changes)
def test_a_request_reads_as_the_change_it_was_written_from(change: DeviceChange) -> None:
    first, *lines, end, after = format_set(change).split("\n")
    assert (first, end, after) == ("set=1", "", "")
    assert parse_set(lines) == change


@given(statuses)
def test_an_answer_reads_as_the_status_it_was_written_from(status: DeviceStatus) -> None:
    assert parse_status(format_status(status)) == status


@given(any_lines)
def test_any_request_is_read_or_refused(lines: list[str]) -> None:
    with suppress(UapiError):
        assert isinstance(parse_set(lines), DeviceChange)


@given(st.text() | any_lines.map(lambda lines: "\n".join([*lines, "errno=0", "", ""])))
def test_any_answer_is_read_or_refused(text: str) -> None:
    with suppress(UapiError):
        assert isinstance(parse_status(text), DeviceStatus)


@given(key_bytes, st.sampled_from(["private_key", "preshared_key"]), st.text(min_size=1))
def test_no_error_shows_a_secret(secret: bytes, name: str, rest: str) -> None:
    start = [f"public_key={'00' * 32}"] if name == "preshared_key" else []
    with pytest.raises(UapiError, match=name) as caught:
        parse_set([*start, f"{name}={secret.hex()}{rest}"])
    assert secret.hex() not in str(caught.value)
    assert caught.value.__suppress_context__
