"""The userspace API's text: what wg sends and reads, and what wireguard-go answers to a bad line."""

from __future__ import annotations

import errno
from ipaddress import ip_network

import pytest

from wgpy.config.uapi import (
    UapiError,
    format_applied,
    format_apply,
    format_set,
    format_status,
    parse_applied,
    parse_apply,
    parse_set,
    parse_status,
)
from wgpy.device.changes import AllowedIPChange, DeviceChange, PeerChange
from wgpy.device.status import DeviceStatus, PeerStatus
from wgpy.endpoint import Endpoint
from wgpy.errors import ConfigError
from wgpy.keys import PresharedKey, PrivateKey, PublicKey

PRIVATE = PrivateKey(bytes(range(32)))
ALICE = PublicKey(b"\xa1" * 32)
BOB = PublicKey(b"\xb0" * 32)
PSK = PresharedKey(b"\x75" * 32)
NET4 = ip_network("192.168.4.0/24")
NET6 = ip_network("fd00:4::/64")

SET = f"""set=1
private_key={PRIVATE.hex()}
listen_port=12912
fwmark=51820
replace_peers=true
public_key={ALICE.hex()}
preshared_key={PSK.hex()}
endpoint=[2001:db8::33]:51820
persistent_keepalive_interval=25
replace_allowed_ips=true
allowed_ip=192.168.4.0/24
allowed_ip=-fd00:4::/64
public_key={BOB.hex()}
remove=true

"""
CHANGE = DeviceChange(
    private_key=PRIVATE,
    listen_port=12912,
    fwmark=51820,
    replace_peers=True,
    peers=(
        PeerChange(
            public_key=ALICE,
            preshared_key=PSK,
            endpoint=Endpoint("2001:db8::33", 51820),
            persistent_keepalive=25,
            replace_allowed_ips=True,
            allowed_ips=(AllowedIPChange(NET4), AllowedIPChange(NET6, remove=True)),
        ),
        PeerChange(public_key=BOB, remove=True),
    ),
)

GET = f"""private_key={PRIVATE.hex()}
listen_port=12912
fwmark=51820
public_key={ALICE.hex()}
preshared_key={PSK.hex()}
protocol_version=1
endpoint=192.0.2.7:51820
last_handshake_time_sec=1700000000
last_handshake_time_nsec=5
tx_bytes=38333
rx_bytes=2224
persistent_keepalive_interval=25
allowed_ip=192.168.4.0/24
allowed_ip=fd00:4::/64
public_key={BOB.hex()}
preshared_key={"00" * 32}
protocol_version=1
last_handshake_time_sec=0
last_handshake_time_nsec=0
tx_bytes=0
rx_bytes=0
persistent_keepalive_interval=0
errno=0

"""
STATUS = DeviceStatus(
    private_key=PRIVATE,
    public_key=PRIVATE.public_key,
    listen_port=12912,
    fwmark=51820,
    peers=(
        PeerStatus(
            public_key=ALICE,
            preshared_key=PSK,
            endpoint=Endpoint("192.0.2.7", 51820),
            allowed_ips=(NET4, NET6),
            last_handshake_ns=1_700_000_000_000_000_005,
            tx_bytes=38333,
            rx_bytes=2224,
            persistent_keepalive=25,
        ),
        PeerStatus(public_key=BOB),
    ),
)


def lines_of(request: str) -> list[str]:
    return request.split("\n")[1:-2]


def only_peer(*lines: str) -> PeerChange:
    (peer,) = parse_set([f"public_key={ALICE.hex()}", *lines]).peers
    return peer


def test_a_set_request_is_read_and_written() -> None:
    assert parse_set(lines_of(SET)) == CHANGE
    assert format_set(CHANGE) == SET


def test_a_get_answer_is_read_and_written_in_the_order_of_wireguard_go() -> None:
    assert format_status(STATUS) == GET
    assert parse_status(GET) == STATUS


def test_drops_come_last_if_there_are_any() -> None:
    status = DeviceStatus(drops={"malformed": 2}, peers=(PeerStatus(public_key=BOB, drops={"invalid_mac1": 1}),))
    told = format_status(status)
    assert told.startswith("drop=malformed:2\npublic_key=")
    assert told.endswith("persistent_keepalive_interval=0\ndrop=invalid_mac1:1\nerrno=0\n\n")
    assert parse_status(told) == status


def test_an_empty_request_changes_nothing_and_an_empty_device_answers_only_errno_0() -> None:
    assert parse_set([]) == DeviceChange()
    assert format_set(DeviceChange()) == "set=1\n\n"
    assert format_status(DeviceStatus(private_key=PrivateKey(bytes(32)))) == "errno=0\n\n"
    assert parse_status("errno=0\n\n") == DeviceStatus()


def test_zero_means_remove_in_a_request_and_unset_in_an_answer() -> None:
    zero = "00" * 32
    change = parse_set([f"private_key={zero}", "fwmark=0", f"public_key={ALICE.hex()}", f"preshared_key={zero}"])
    assert (change.private_key, change.fwmark, change.peers[0].preshared_key) == (bytes(32), 0, bytes(32))
    status = parse_status(f"private_key={zero}\npublic_key={ALICE.hex()}\npreshared_key={zero}\nerrno=0\n\n")
    assert (status.private_key, status.public_key, status.peers[0].preshared_key) == (None, None, None)


def test_a_peer_named_twice_is_changed_twice_in_order() -> None:
    change = parse_set([f"public_key={ALICE.hex()}", "allowed_ip=192.168.4.0/24"] * 2)
    assert change.peers == (PeerChange(public_key=ALICE, allowed_ips=(AllowedIPChange(NET4),)),) * 2


def test_other_keys_of_a_removed_peer_are_ignored() -> None:
    assert only_peer("allowed_ip=192.168.4.0/24", "remove=true", "endpoint=192.0.2.1:1") == PeerChange(
        public_key=ALICE, remove=True
    )
    with pytest.raises(UapiError, match="endpoint"):
        only_peer("remove=true", "endpoint=nowhere")


def test_replacing_allowed_ips_forgets_those_named_before_it() -> None:
    peer = only_peer("allowed_ip=192.168.4.0/24", "replace_allowed_ips=true", "allowed_ip=fd00:4::/64")
    assert peer.replace_allowed_ips
    assert peer.allowed_ips == (AllowedIPChange(NET6),)


def test_host_bits_of_a_prefix_are_masked() -> None:
    assert only_peer("allowed_ip=192.168.4.9/24").allowed_ips == (AllowedIPChange(NET4),)


def test_update_only_and_protocol_version_are_accepted() -> None:
    assert only_peer("update_only=true", "protocol_version=1") == PeerChange(public_key=ALICE, update_only=True)


def test_the_zone_of_an_endpoint_is_an_index_or_the_name_of_an_interface() -> None:
    named = [f"public_key={ALICE.hex()}", "endpoint=[fe80::1%eth0]:51820"]
    answer = "\n".join([*named, "errno=0"]) + "\n\n"
    index = {"eth0": 7}.__getitem__
    assert only_peer("endpoint=[fe80::1%3]:51820").endpoint == Endpoint("fe80::1", 51820, 3)
    assert parse_set(named, index).peers[0].endpoint == Endpoint("fe80::1", 51820, 7)
    assert parse_status(answer, index).peers[0].endpoint == Endpoint("fe80::1", 51820, 7)


def test_the_zone_of_an_unknown_interface_is_refused() -> None:
    def missing(name: str) -> int:
        raise OSError(errno.ENODEV, name)

    lines = [f"public_key={ALICE.hex()}", "endpoint=[fe80::1%eth9]:51820"]
    with pytest.raises(UapiError, match="endpoint"):
        parse_set(lines)
    with pytest.raises(UapiError, match="endpoint"):
        parse_set(lines, missing)


DEVICE_LINES = [
    "private_key=00",
    f"private_key={'0g' * 32}",
    f"private_key={PRIVATE.base64()}",
    "listen_port=65536",
    "listen_port=-1",
    "listen_port= 1",
    "listen_port=1_0",
    "listen_port=\u0661",
    "listen_port=",
    "fwmark=4294967296",
    "fwmark=0x10",
    f"fwmark={'9' * 5000}",
    "replace_peers=false",
    "replace_peers=",
    "public_key=",
    "preshared_key=" + "00" * 32,
    "own_public_key=" + "00" * 32,
]
PEER_LINES = [
    "update_only=false",
    "remove=1",
    "preshared_key=00",
    "endpoint=example.org:51820",
    "endpoint=192.0.2.1",
    "endpoint=192.0.2.1:65536",
    "endpoint=192.0.2.256:1",
    "endpoint=[fe80::1%9999999999]:1",
    "persistent_keepalive_interval=65536",
    "persistent_keepalive_interval=off",
    "replace_allowed_ips=yes",
    "allowed_ip=192.168.4.0",
    "allowed_ip=192.168.4.0/33",
    "allowed_ip=192.168.4.0/255.255.255.0",
    "allowed_ip=--192.168.4.0/24",
    "allowed_ip=fe80::%1/64",
    "allowed_ip=",
    "protocol_version=2",
    "listen_port=1",
    "private_key=" + "00" * 32,
    "replace_peers=true",
]


@pytest.mark.parametrize("line", DEVICE_LINES)
def test_a_bad_device_line_is_einval_and_is_named(line: str) -> None:
    with pytest.raises(UapiError, match=f"line 1: .*{line.partition('=')[0]}") as caught:
        parse_set([line])
    assert caught.value.errno == errno.EINVAL
    assert isinstance(caught.value, ConfigError)


@pytest.mark.parametrize("line", PEER_LINES)
def test_a_bad_peer_line_is_einval_and_is_named(line: str) -> None:
    with pytest.raises(UapiError, match=f"line 2: .*{line.partition('=')[0]}") as caught:
        only_peer(line)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("line", ["private_key", "", "listen_port 1", PRIVATE.hex()])
def test_a_line_without_an_equals_sign_is_eproto(line: str) -> None:
    with pytest.raises(UapiError) as caught:
        parse_set(["fwmark=1", line])
    assert caught.value.errno == errno.EPROTO


@pytest.mark.parametrize("secret", [PRIVATE.hex(), PRIVATE.base64()])
@pytest.mark.parametrize("line", ["private_key={}0", "{}", "{}=", "privat_key={}", "listen_port={}", "endpoint={}"])
def test_an_error_never_shows_what_was_sent(line: str, secret: str) -> None:
    for start in ([], [f"public_key={ALICE.hex()}"]):
        with pytest.raises(UapiError) as caught:
            parse_set([*start, line.format(secret)])
        assert secret.rstrip("=") not in str(caught.value)


def test_unknown_keys_in_an_answer_are_skipped() -> None:
    foreign = GET.replace("listen_port", "own_public_key=1\nlisten_port").replace("tx_bytes", "daita=x=y\ntx_bytes")
    assert parse_status(foreign) == STATUS


@pytest.mark.parametrize("text", ["errno=22\n\n", "errno=-22\n\n", GET.replace("errno=0", "errno=22")])
def test_an_error_in_an_answer_is_raised_with_its_number(text: str) -> None:
    with pytest.raises(UapiError, match="EINVAL") as caught:
        parse_status(text)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "errno=0\n",
        "errno=\n\n",
        "errno=no\n\n",
        "listen_port=1\n\n",
        "listen_port\nerrno=0\n\n",
        "listen_port=x\nerrno=0\n\n",
        GET[: len(GET) // 2],
        GET.replace("nsec=5", "nsec=1000000000"),
        GET.replace("4.0/24", "4.0"),
    ],
)
def test_a_malformed_answer_is_eproto(text: str) -> None:
    with pytest.raises(UapiError) as caught:
        parse_status(text)
    assert caught.value.errno == errno.EPROTO


@pytest.mark.parametrize("text", ["", "[Interface]\n\n# \udce4\n", "AllowedIPs = " + "10.0.0.0/8, " * 20_000])
def test_a_whole_file_arrives_as_it_was_sent(text: str) -> None:
    lines = format_apply(text).splitlines()
    assert lines[0] == "apply=1"
    assert max(map(len, lines)) < 1 << 15
    assert parse_apply(filter(None, lines[1:])) == text


@pytest.mark.parametrize("line", ["text=?", "text=YQ", "txt=YQ=="])
def test_a_damaged_file_is_refused(line: str) -> None:
    with pytest.raises(UapiError):
        parse_apply([line])


@pytest.mark.parametrize("error", ["", "wg0.conf:3: MTU: expected\nwg0.conf:4: two lines"])
def test_steps_and_an_error_arrive(error: str) -> None:
    steps = ["ip -4 route add 10.0.0.0/8 dev wg0", "echo 'a=b' % \u00e4"]
    assert parse_applied(format_applied(steps, error)) == (steps, error)


@pytest.mark.parametrize("answer", ["", "errno=-22\n\n", "errno=0\n", "step=a\nerrno=-1\n\n", "text"])
def test_an_answer_that_is_not_wgpys_is_an_error(answer: str) -> None:
    with pytest.raises(UapiError):
        parse_applied(answer)
