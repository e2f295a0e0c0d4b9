"""wireproxy's sections, and ssh's syntax for forwards."""

from __future__ import annotations

import pytest

from wgpy.config import wgquick
from wgpy.config.services import Forward, Place, Proxy, Services, parse_forward, parse_place, split
from wgpy.config.wgquick import ConfigFileError
from wgpy.errors import ConfigError
from wgpy.keys import PrivateKey

KEY = PrivateKey.generate()
FILE = f"""\
# The same file as for wireproxy.
[Interface]
Address = 10.200.200.2/32
PrivateKey = {KEY.base64()}
DNS = 10.200.200.1

[Peer]
PublicKey = {KEY.public_key.base64()}
Endpoint = 192.0.2.1:51820
AllowedIPs = 0.0.0.0/0

[TCPClientTunnel]
BindAddress = 127.0.0.1:25565
Target = play.example.net:25565  # over there

[TCPServerTunnel]
ListenPort = 3422
Target = localhost:25545

[UDPProxyTunnel]
BindAddress = [::1]:53
Target = 10.200.200.1:53

[STDIOTunnel]
Target = ssh.example.net:22

[Socks5]
BindAddress = 127.0.0.1:25344
#Username = nobody

[http]
BindAddress = 127.0.0.1:25345
Username = me
Password = se#cret
"""


def test_a_wireproxy_file_is_read() -> None:
    rest, services = split(FILE, "wg0.conf")
    assert wgquick.parse(rest).config.private_key == KEY
    assert services == Services(
        proxies=(
            Proxy("socks5", Place("127.0.0.1", 25344)),
            Proxy("http", Place("127.0.0.1", 25345), "me", "se#cret"),
        ),
        forwards=(
            Forward(Place("127.0.0.1", 25565), Place("play.example.net", 25565)),
            Forward(Place("", 3422), Place("localhost", 25545), reverse=True),
            Forward(Place("::1", 53), Place("10.200.200.1", 53), protocol="udp"),
        ),
        stdio=Place("ssh.example.net", 22),
    )
    assert "se#cret" not in repr(services)


def test_lines_keep_their_numbers() -> None:
    rest, _ = split("[Socks5]\nBindAddress = 127.0.0.1:1\n[Interface]\nMTU = no\n", "wg0.conf")
    with pytest.raises(ConfigFileError, match=r"wg0\.conf:4: MTU"):
        wgquick.parse(rest, "wg0.conf")


def test_the_tunnel_may_be_in_another_file() -> None:
    rest, services = split('WGConfig = "wg1.conf"\n[Socks5]\nBindAddress = 1080\n')
    assert services.config == "wg1.conf"
    assert rest.strip() == ""
    assert services.proxies == (Proxy("socks5", Place("127.0.0.1", 1080)),)


def test_a_file_without_wireproxys_sections_stays_as_it_is() -> None:
    text = FILE.partition("[TCPClient")[0]
    assert split(text) == (text, Services())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[Socks5]\n", "f:1: [Socks5]: BindAddress is missing"),
        ("[http]\nBindAdress = 1\n", "f:2: BindAdress: expected one of BindAddress, Username, Password in [http]"),
        ("[http]\nsecret words\n", "f:2: expected one of BindAddress, Username, Password in [http]"),
        ("\n[STDIOTunnel]\nTarget = nowhere\n", "f:2: [STDIOTunnel]: expected HOST:PORT or [IPV6]:PORT, not 'nowhere'"),
    ],
)
def test_problems_name_file_line_and_what_was_expected(text: str, said: str) -> None:
    with pytest.raises(ConfigFileError) as raised:
        split(text, "f")
    assert said in str(raised.value).splitlines()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("10.0.0.1:80", Place("10.0.0.1", 80)),
        ("[fd00::1]:80", Place("fd00::1", 80)),
        ("db.internal:5432", Place("db.internal", 5432)),
        (":80", Place("", 80)),
        ("80", Place("here", 80)),
    ],
)
def test_addresses_and_ports_are_parsed(text: str, place: Place) -> None:
    assert parse_place(text, host="here") == place


@pytest.mark.parametrize("text", ["", "x", "a:b", "1.2.3.4:65536", "fd00::1:80", "[x]:1", "a b:1", "[fd00::1]80"])
def test_an_invalid_address_or_port_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_place(text)


def test_the_error_for_an_address_says_what_was_expected() -> None:
    with pytest.raises(ConfigError, match=r"^expected a port number, 0 to 65535, not '65536'$"):
        parse_place("65536", host="127.0.0.1")
    with pytest.raises(ConfigError, match=r"^expected \[HOST:\]PORT, not 'x'$"):
        parse_place("x", host="127.0.0.1")


@pytest.mark.parametrize(
    ("text", "forward"),
    [
        ("8080:10.0.0.5:80", Forward(Place("127.0.0.1", 8080), Place("10.0.0.5", 80))),
        ("0.0.0.0:8080:[fd00::5]:80", Forward(Place("0.0.0.0", 8080), Place("fd00::5", 80))),
        ("[::1]:8080:h:80/tcp", Forward(Place("::1", 8080), Place("h", 80))),
        ("5353:10.0.0.1:53/udp", Forward(Place("127.0.0.1", 5353), Place("10.0.0.1", 53), protocol="udp")),
        (":8080:h:80", Forward(Place("", 8080), Place("h", 80))),
    ],
)
def test_forwards_are_parsed(text: str, forward: Forward) -> None:
    assert parse_forward(text) == forward


def test_a_reverse_forward_listens_on_every_address_of_the_tunnel() -> None:
    assert parse_forward("8000:localhost:80", reverse=True).listen == Place("", 8000)


@pytest.mark.parametrize("text", ["", "80", "80:h", "80:h:80/sctp", "x:h:80", "80:h:0", "1:2:3:4:5", "80:h:99999"])
def test_an_invalid_forward_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_forward(text)


@pytest.mark.parametrize(
    ("line", "password"),
    [
        ("se#cret", "se#cret"),
        ("a;b = c", "a;b = c"),
        ('"#se # cret"', "#se # cret"),
        ('"""with " in it ;#"""', 'with " in it ;#'),
        ("`#`", "#"),
    ],
)
def test_a_password_is_its_whole_line(line: str, password: str) -> None:
    _, services = split(f"[Socks5]\nBindAddress = 1080\nUsername = me\nPassword = {line}\n")
    assert services.proxies[0].password == password


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("Username = me\nPassword = secret # or more", "f:4: Password: unclear whether the # or ; starts a comment"),
        ("Username = me\nPassword = #secret", "f:4: Password: unclear whether the # or ; starts a comment"),
        ("Password = secret", "f:1: [http]: the user name is missing; a password needs one"),
        ("Username = me", "f:1: [http]: the password is missing; a user name needs one"),
        ("Username =\nPassword =", "f:1: [http]: the user name and the password are empty"),
        (f"Username = me\nPassword = {'x' * 256}", "at most 255 bytes"),
    ],
)
def test_an_incomplete_password_of_a_proxy_is_an_error(lines: str, said: str) -> None:
    """Each of these once ran a proxy that asked for no password, or only for half of it."""
    with pytest.raises(ConfigFileError) as raised:
        split(f"[http]\nBindAddress = 3128\n{lines}\n", "f")
    assert said in str(raised.value)
    assert "secret" not in str(raised.value)
