"""wg-quick files: what they mean, what is wrong with them, and that reading one loses nothing."""

from __future__ import annotations

import subprocess
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from wgpy.config.values import ALL_OFFLOADS, EndpointName, InterfaceConfig, Offloads, PeerConfig
from wgpy.config.wgquick import ConfigFileError, Problem, parse, read_wg
from wgpy.keys import PresharedKey, PrivateKey, PublicKey

SECRET = PrivateKey(bytes(range(32)))
SHARED = PresharedKey(bytes(range(1, 33)))
ONE, TWO = PublicKey(b"\1" * 32), PublicKey(b"\2" * 32)

FULL = f"""\
# home
[Interface]
PrivateKey = {SECRET.base64()}  # mine
ListenPort = 51820
FwMark = 0xCA6C
Address = 10.0.0.2/24, fd00::2/64
Address = 192.0.2.7
MTU = 1380
DNS = 1.1.1.1, 2606:4700:4700::1111 example.org
Table = 123
PreUp = echo %i
PostUp = iptables -A FORWARD -i %i -j ACCEPT
PostUp = echo 'a # b' = c
PreDown = true
PostDown = false
SaveConfig = true

[Peer]
# the office
PublicKey = {ONE.base64()}
PresharedKey = {SHARED.base64()}
AllowedIPs = 10.0.0.0/24, 10.1.2.3
AllowedIPs = ::/0
Endpoint = vpn.example.org:51820
PersistentKeepalive = 25

[Peer]
PublicKey = {TWO.base64()}
"""
MESSY = (
    f"[interface]\r\n\tPRIVATEKEY={SECRET.base64()}\r\n table =off # no routes\r\n#PostUp = never\r\n"
    f" [ PEER ] # one\r\n Public Key = {ONE.base64()[:9]} {ONE.base64()[9:]}\r\n"
    "allowedips = 10.0 .0.0/8 ,\t192.0.2.1\r\nEndPoint=[2001:DB8::1]:1 # v6\r\n\r\n[INTERFACE]\r\nmtu=1400"
)


def errors(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigFileError) as caught:
        parse(text)
    return caught.value.problems


def interface(line: str) -> InterfaceConfig:
    return parse(f"[Interface]\n{line}\n").config


def peer(line: str) -> PeerConfig:
    (only,) = parse(f"[Peer]\nPublicKey = {ONE}\n{line}\n").config.peers
    return only


def test_every_key_is_read() -> None:
    assert parse(FULL).config == InterfaceConfig(
        private_key=SECRET,
        listen_port=51820,
        fwmark=0xCA6C,
        addresses=(ip_interface("10.0.0.2/24"), ip_interface("fd00::2/64"), ip_interface("192.0.2.7/32")),
        mtu=1380,
        dns=("1.1.1.1", "2606:4700:4700::1111"),
        dns_search=("example.org",),
        table=123,
        pre_up=("echo %i",),
        post_up=("iptables -A FORWARD -i %i -j ACCEPT", "echo 'a # b' = c"),
        pre_down=("true",),
        post_down=("false",),
        save_config=True,
        peers=(
            PeerConfig(
                public_key=ONE,
                preshared_key=SHARED,
                endpoint=EndpointName(host="vpn.example.org", port=51820),
                persistent_keepalive=25,
                allowed_ips=(ip_network("10.0.0.0/24"), ip_network("10.1.2.3/32"), ip_network("::/0")),
            ),
            PeerConfig(public_key=TWO),
        ),
    )
    assert parse(FULL).warnings == ()


def test_case_white_space_and_the_order_of_sections_do_not_matter() -> None:
    assert parse(MESSY).config == InterfaceConfig(
        private_key=SECRET,
        mtu=1400,
        table="off",
        peers=(
            PeerConfig(
                public_key=ONE,
                endpoint=EndpointName(host="2001:db8::1", port=1),
                allowed_ips=(ip_network("10.0.0.0/8"), ip_network("192.0.2.1/32")),
            ),
        ),
    )


@pytest.mark.parametrize("text", ["", "\n", "# nothing", FULL, FULL.rstrip(), MESSY, FULL.replace("\n", "\r\n")])
def test_a_file_that_was_read_writes_the_same_text(text: str) -> None:
    assert str(parse(text)) == text


def test_an_empty_file_is_an_empty_interface() -> None:
    assert parse("").config == InterfaceConfig()


def test_strip_keeps_what_wg_knows_and_every_comment() -> None:
    stripped = parse(FULL).strip()
    assert "# home\n[Interface]\nPrivateKey" in stripped
    assert "# the office" in stripped
    own = ("Address", "MTU", "DNS", "Table", "PreUp", "PostUp", "PreDown", "PostDown", "SaveConfig")
    assert not any(line.startswith(own) for line in stripped.splitlines())
    assert len(stripped.splitlines()) == len(FULL.splitlines()) - 11


@pytest.mark.root
@pytest.mark.parametrize("text", [FULL, FULL.rstrip(), "[Peer]\nPublicKey=x\n[interface]\n postup = a # b\n# c\n"])
def test_strip_prints_what_wg_quick_strip_prints(text: str, tmp_path: Path) -> None:
    text = text.replace("=x\n", f"={ONE}\n")
    path = tmp_path / "wg9.conf"
    path.write_text(text)
    path.chmod(0o600)
    printed = subprocess.run(["wg-quick", "strip", str(path)], capture_output=True, text=True, check=True).stdout
    # bash's `read` trims each line, and `echo` adds a last newline.
    assert [line.strip() for line in parse(text).strip().rstrip().split("\n")] == printed.rstrip().split("\n")


@pytest.mark.parametrize(
    ("line", "table"), [("", "auto"), ("Table = Auto", "auto"), ("Table = 0x10", 16), ("Table = vpn", "vpn")]
)
def test_a_table_is_auto_off_a_number_or_a_name(line: str, table: int | str) -> None:
    assert interface(line).table == table


@pytest.mark.parametrize(("written", "mark"), [("off", 0), ("OFF", 0), ("51820", 51820), ("0xFFFFFFFF", 0xFFFFFFFF)])
def test_a_mark_is_off_decimal_or_hexadecimal(written: str, mark: int) -> None:
    assert interface(f"FwMark = {written}").fwmark == mark


@pytest.mark.parametrize("key", ["MTU", "DNS", "Address", "Table", "PostUp"])
def test_an_empty_key_of_wg_quick_is_ignored(key: str) -> None:
    assert interface(f"{key} =") == InterfaceConfig()


@pytest.mark.parametrize(
    ("written", "host", "shown"),
    [
        ("192.0.2.1:1", "192.0.2.1", "192.0.2.1:1"),
        ("[fe80::1%eth0.5]:1", "fe80::1%eth0.5", "[fe80::1%eth0.5]:1"),
        ("2001:db8::5:1", "2001:db8::5", "[2001:db8::5]:1"),  # as `wg` reads it: the port is behind the last colon
        ("a-b_c.example.:1", "a-b_c.example.", "a-b_c.example.:1"),
    ],
)
def test_an_endpoint_is_a_name_or_an_address_and_a_port(written: str, host: str, shown: str) -> None:
    endpoint = peer(f"Endpoint = {written}").endpoint
    assert endpoint == EndpointName(host=host, port=1)
    assert str(endpoint) == shown


@pytest.mark.parametrize(
    "written",
    [
        "",
        "host",
        "host:",
        ":1",
        "host:http",
        "host:0",
        "host:65536",
        "300.1.1.1:1",
        "1.2.3:1",
        "[::1]",
        "[::1]1",
        "[host]:1",
        "[1.2.3.4]:1",
        "a..b:1",
        "-a:1",
        "ä:1",
        f"{'a' * 64}:1",
        f"[fe80::1%{'a' * 16}]:1",
        "[fe80::1%]:1",
        "[fe80::1%a..b]:1",
        "host:١",
    ],
)
def test_an_endpoint_that_cannot_be_resolved_is_an_error(written: str) -> None:
    (problem,) = errors(f"[Peer]\nPublicKey={ONE}\nEndpoint = {written}")
    assert problem.message.startswith("expected vpn.example.org:51820, ")


@pytest.mark.parametrize(
    "written",
    [
        "+10.0.0.0/8",
        "-::/0",
        "10.0.0.0/33",
        "::/129",
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/",
        "1,,2",
        "fe80::1%eth0/64",
        "10.0.0.0/8,",
        "010.0.0.1",
        "10.1",
        "example.org",
        "10.0.0.0/8 /8",
    ],
)
def test_allowed_ips_have_no_host_bits(written: str) -> None:
    assert all(
        problem.message.startswith("expected networks separated by commas, without + or -")
        for problem in errors(f"[Peer]\nPublicKey={ONE}\nAllowedIPs = {written}")
    )


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[Interface]\nudp gso = off", "UdpGso"),
        ("[Interface]\nTunOffload = off", "TunOffload"),
        ("[Peer]\nPublicKey = {}\nName = laptop", "Name"),
    ],
)
def test_a_key_that_belongs_in_a_comment_gets_an_error_that_shows_it_there(text: str, key: str) -> None:
    (problem,) = errors(text.format(ONE.base64()))
    assert (problem.key, problem.message) == (key, f"a key of wgpy's own, which must be in a comment: # {key} = ...")


@pytest.mark.parametrize(
    "line",
    [
        "ListenPort = 65536",
        "ListenPort = http",
        "ListenPort = 1_0",
        "ListenPort = ",
        "FwMark = 0x100000000",
        "FwMark = -1",
        "MTU = 67",
        "MTU = 65536",
        "MTU = off",
        "DNS = 1.1.1",
        "DNS = ::g",
        "DNS = -x",
        "DNS = a;b",
        "Address = 10.0.0.1/33",
        "Address = x",
        "Table = 4294967296",
        "Table = -x",
        "SaveConfig = yes",
        "PrivateKey =",
    ],
)
def test_the_error_for_a_value_out_of_range_says_what_was_expected(line: str) -> None:
    (problem,) = errors(f"[Interface]\n{line}")
    assert problem.line == 2
    assert problem.key == line.split()[0]
    assert problem.message.startswith("expected ")


def test_host_bits_are_masked_with_a_warning() -> None:
    file = parse(f"[Peer]\nPublicKey={ONE}\nAllowedIPs = 10.0.0.5/24, fd00::/8\n", "wg0.conf")
    assert file.config.peers[0].allowed_ips == (ip_network("10.0.0.0/24"), ip_network("fd00::/8"))
    (warning,) = map(str, file.warnings)
    assert warning == "wg0.conf:3: AllowedIPs: 10.0.0.5/24 has host bits set; it means 10.0.0.0/24"


def test_the_last_of_two_values_counts_with_a_warning() -> None:
    file = parse("[Interface]\nMTU = 1400\n[Interface]\nMTU = 1300")
    assert file.config.mtu == 1300
    assert [str(warning) for warning in file.warnings] == ["line 4: MTU: already set in line 2; this line replaces it"]


def test_an_address_given_twice_gets_a_warning_and_counts_once() -> None:
    file = parse("[Interface]\nAddress = 10.0.0.1/24\nAddress = fd00::1/64, 10.0.0.1/24\n")
    assert [str(warning) for warning in file.warnings] == ["line 3: Address: repeats an address"]
    assert list(map(str, file.config.addresses)) == ["10.0.0.1/24", "fd00::1/64"]


def test_a_peer_given_twice_is_updated_and_its_allowed_ips_are_replaced() -> None:
    again = f"[Peer]\nPublicKey={ONE}\nPersistentKeepalive=5\nAllowedIPs=10.1.0.0/16\n[Peer]\nPublicKey={TWO}\n"
    again += f"[Peer]\nPublicKey={ONE}\nEndpoint=h:1\nAllowedIPs=10.2.0.0/16\n"
    file = parse(again)
    first, second = file.config.peers
    assert (first.public_key, second.public_key) == (ONE, TWO)
    assert (first.persistent_keepalive, first.endpoint) == (5, EndpointName(host="h", port=1))
    assert first.allowed_ips == (ip_network("10.2.0.0/16"),)
    assert [warning.line for warning in file.warnings] == [8]


def test_all_problems_of_a_file_are_reported_at_once_in_order() -> None:
    text = (
        "MTU = 1\n[Peer]\nDNS = ::1\n[Interface]\nEndpiont = x\nwhat\nMTU = 1\nListenPort = 1\0\n[Pear]\nanything = 1"
    )
    with pytest.raises(ConfigFileError) as caught:
        parse(text, "wg0.conf")
    assert str(caught.value).splitlines() == [
        "wg0.conf:1: MTU: not in a section; expected [Interface] above it",
        "wg0.conf:2: PublicKey: missing in this [Peer]; expected the 44 base64 characters that `wg pubkey` prints",
        "wg0.conf:3: DNS: belongs in [Interface], not in [Peer]",
        "wg0.conf:5: Endpiont: unknown key; did you mean Endpoint?",
        "wg0.conf:6: expected [Interface], [Peer] or KEY = VALUE",
        "wg0.conf:7: MTU: expected a number of bytes, 68 to 65535, not '1'",
        "wg0.conf:8: has a control character; expected text in UTF-8",
        "wg0.conf:9: unknown section; did you mean [Peer]?",
    ]


def test_the_error_for_an_unknown_key_lists_those_of_its_section() -> None:
    (problem,) = errors("[Peer]\nPublicKey=" + ONE.base64() + "\nxyz = 1")
    assert problem.key == "xyz"
    assert problem.message.endswith("one of PublicKey, PresharedKey, AllowedIPs, Endpoint, PersistentKeepalive")


@pytest.mark.parametrize("line", ["abcdefgh=", "abcdefghijkl = mnopqrstuvwx", "abc9+/ = 1"])
def test_an_unknown_key_is_not_named_where_it_may_be_part_of_a_secret(line: str) -> None:
    (problem,) = errors(f"[Interface]\n{line}")
    assert problem.key == ""
    assert line[:6] not in str(problem)


@pytest.mark.parametrize(
    "line",
    [
        "PrivateKey {}",
        "PrivateKey: {}",
        "PrivateKey = ={}",
        "PrivatKey = {}",
        "PresharedKey = {}",
        "{}",
        "{}=",
        "[{}]",
        "PrivateKey = {} {}",
        "PrivateKey = x{}",
        "[PrivateKey = {}",
        "PublicKey = {}",
        "PublicKey = {}x",
        "{} = {}",
    ],
)
def test_no_message_repeats_a_secret(line: str) -> None:
    for secret in (SECRET.base64(), SECRET.base64().rstrip("="), SECRET.base64()[:12]):
        text = f"[Interface]\n{line.replace('{}', secret)}\n"
        assert all(secret[:12] not in str(problem) + repr(problem) for problem in errors(text))


def test_no_repr_shows_a_secret() -> None:
    shown = repr(parse(FULL))
    assert SECRET.base64() not in shown
    assert SHARED.base64() not in shown


@pytest.mark.parametrize(
    "comment", ["# Name = laptop of Zoë", "#friendly_name=laptop of Zoë  ", "  # NAME = laptop of Zoë\r"]
)
def test_a_comment_names_a_peer(comment: str) -> None:
    key = SECRET.public_key.base64()
    text = f"[Interface]\n# Name = not a peer\n[Peer]\n{comment}\nPublicKey = {key}\n# nothing = else\n"
    parsed = parse(text)
    assert [peer.name for peer in parsed.config.peers] == ["laptop of Zoë"]
    assert str(parsed) == text


def test_a_network_given_to_two_peers_gets_a_warning() -> None:
    """/0 and its halves, which mean the rest, are no overlap, nor are networks of the same peer."""
    keys = [PrivateKey.generate().public_key.base64() for _ in range(3)]
    networks = ("10.0.0.0/8, 10.1.0.0/16, 0.0.0.0/0, ::/1", "10.0.0.0/8, 192.0.2.0/24", "10.1.2.0/24, fd00::/8")
    peers = [f"[Peer]\nPublicKey = {key}\nAllowedIPs = {of}\n" for key, of in zip(keys, networks, strict=True)]
    said = [str(problem) for problem in parse("[Interface]\n" + "".join(peers), "f").warnings]
    assert said == [
        "f:4: AllowedIPs: 10.1.0.0/16 is part of 10.0.0.0/8 of the peer in line 5, and is taken from it",
        "f:7: AllowedIPs: 10.0.0.0/8 also belongs to the peer in line 2; the last one gets it",
        "f:10: AllowedIPs: 10.1.2.0/24 is part of 10.0.0.0/8 of the peer in line 5, and is taken from it",
        "f:10: AllowedIPs: 10.1.2.0/24 is part of 10.1.0.0/16 of the peer in line 2, and is taken from it",
    ]


def test_wgpys_own_switches_are_comments_for_others() -> None:
    text = f"[Interface]\nPrivateKey = {SECRET.base64()}\n# UdpGso = off\n  #tunoffload=OFF # broken card\n"
    text += "#ClampMSS = on\n"
    file = parse(text)
    assert (file.config.udp_gso, file.config.tun_offload, file.config.clamp_mss) == (False, False, True)
    assert file.config.offloads == Offloads(udp_gso=False, tun=False)
    assert str(file) == file.strip() == text
    assert not file.warnings
    assert interface("# UdpGso = on").offloads == interface("# UdpGsoo = off").offloads == ALL_OFFLOADS
    assert read_wg(text)[0] == {"private_key": SECRET}


def test_a_switch_that_is_neither_on_nor_off_is_an_error_with_its_line() -> None:
    with pytest.raises(ConfigFileError) as error:
        parse("[Interface]\nMTU = 1400\n# UdpGso = no\n# TunOffload =\n", "wg0.conf")
    assert str(error.value) == (
        "wg0.conf:3: # UdpGso: expected on or off, not 'no'\nwg0.conf:4: # TunOffload: expected on or off, not nothing"
    )


def test_a_switch_in_the_wrong_place_is_a_comment_with_a_warning() -> None:
    file = parse(f"# UdpGso = off\n[Interface]\n[Peer]\nPublicKey = {ONE}\n# TunOffload = off\n", "wg0.conf")
    assert file.config.offloads == ALL_OFFLOADS
    assert list(map(str, file.warnings)) == [
        "wg0.conf:1: # UdpGso: belongs in [Interface]; ignored here",
        "wg0.conf:5: # TunOffload: belongs in [Interface]; ignored here",
    ]
