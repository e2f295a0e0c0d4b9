"""Configuration files: any text is read or refused, nothing read is lost, and a value written is the value read."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.examples import examples
from wgpy.config.edit import rewritten
from wgpy.config.values import EndpointName, InterfaceConfig, PeerConfig
from wgpy.config.wgquick import ROWS, ConfigFileError, parse
from wgpy.keys import PresharedKey, PrivateKey, PublicKey

key_bytes = st.binary(min_size=32, max_size=32)
sixteen = st.integers(0, 0xFFFF)
thirty_two = st.integers(0, 0xFFFFFFFF)
interfaces = st.one_of(
    st.builds(lambda address, length: IPv4Interface((address, length)), thirty_two, st.integers(0, 32)),
    st.builds(
        lambda address, length: IPv6Interface((address, length)), st.integers(0, 2**128 - 1), st.integers(0, 128)
    ),
)
words = st.from_regex(r"[a-z][a-z0-9]{0,15}", fullmatch=True)
hosts = st.one_of(
    interfaces.map(lambda interface: str(interface.ip)), st.lists(words, min_size=1, max_size=3).map(".".join)
)
commands = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Z"]), min_size=1)

peers = st.builds(
    PeerConfig,
    public_key=key_bytes.map(PublicKey),
    preshared_key=st.none() | key_bytes.map(PresharedKey),
    endpoint=st.none() | st.builds(EndpointName, host=hosts, port=st.integers(1, 0xFFFF)),
    persistent_keepalive=sixteen,
    allowed_ips=st.lists(interfaces.map(lambda interface: interface.network), max_size=3).map(tuple),
)
configs = st.builds(
    InterfaceConfig,
    private_key=st.none() | key_bytes.map(PrivateKey),
    listen_port=sixteen,
    fwmark=thirty_two,
    addresses=st.lists(interfaces, max_size=2, unique=True).map(tuple),
    mtu=st.none() | st.integers(1280, 0xFFFF),  # what goes with IPv6 addresses
    dns=st.lists(interfaces.map(lambda interface: str(interface.ip)), max_size=2).map(tuple),
    dns_search=st.lists(words, max_size=2).map(tuple),
    table=thirty_two | words,
    pre_up=st.lists(commands, max_size=2).map(tuple),
    post_up=st.lists(commands, max_size=2).map(tuple),
    pre_down=st.lists(commands, max_size=2).map(tuple),
    post_down=st.lists(commands, max_size=2).map(tuple),
    save_config=st.booleans(),
    peers=st.lists(peers, unique_by=lambda peer: peer.public_key, max_size=3).map(tuple),
).filter(
    # A file that shows its private key as a peer's public one is refused.
    lambda config: (
        config.private_key is None
        or all(peer.public_key.base64() != config.private_key.base64() for peer in config.peers)
    )
)
spaces = st.text(" \t", max_size=2)


def spell(draw: st.DrawFn, name: str, value: object) -> str:
    """One line, in any of the ways a person may write it."""
    name = draw(st.sampled_from([name, name.lower(), name.upper()]))
    return draw(spaces) + name + draw(spaces) + "=" + draw(spaces) + str(value) + draw(spaces)


@st.composite
def files(draw: st.DrawFn) -> tuple[InterfaceConfig, str]:
    """A configuration, and a file that says it."""
    config = draw(configs)
    private_key = [config.private_key.base64()] if config.private_key else []
    entries: list[tuple[str, object]] = [("PrivateKey", key) for key in private_key]
    entries += [
        ("ListenPort", config.listen_port),
        ("FwMark", draw(st.sampled_from([str(config.fwmark), hex(config.fwmark)]))),
        ("SaveConfig", str(config.save_config)),
        ("Table", config.table),
        *(("MTU", mtu) for mtu in [config.mtu] if mtu),
        *(("Address", address) for address in config.addresses),
        ("DNS", draw(st.sampled_from([",", " ", ", "])).join([*config.dns, *config.dns_search])),
        *(("PreUp", command) for command in config.pre_up),
        *(("PostUp", command) for command in config.post_up),
        *(("PreDown", command) for command in config.pre_down),
        *(("PostDown", command) for command in config.post_down),
    ]
    lines = ["[Interface]", *(spell(draw, name, value) for name, value in entries)]
    for peer in config.peers:
        entries = [("PublicKey", peer.public_key), ("AllowedIPs", " , ".join(map(str, peer.allowed_ips)))]
        entries += [("PresharedKey", peer.preshared_key.base64())] if peer.preshared_key is not None else []
        entries += [("Endpoint", peer.endpoint)] if peer.endpoint else []
        entries += [("PersistentKeepalive", peer.persistent_keepalive or "off")]
        lines += ["[Peer]", *(spell(draw, name, value) for name, value in draw(st.permutations(entries)))]
    comments = draw(st.lists(st.sampled_from(["", "# [Peer]", "#MTU = 1"]), min_size=len(lines), max_size=len(lines)))
    ending = draw(st.sampled_from(["\n", "\r\n"]))
    return config, ending.join(part for pair in zip(comments, lines, strict=True) for part in pair)


# Text that gets past the first look: sections and keys with anything, or with pieces of values, behind them.
pieces = st.sampled_from(
    ["", "off", "0x", "auto", "[::1]:1", "::1/128", "1.2.3.4/", "host:1", "A" * 43 + "=", ",", "%"]
)
values = st.lists(st.text(max_size=8) | pieces, max_size=3).map("".join)
names = st.sampled_from([key.name for key in ROWS]) | st.text(max_size=12)
near_misses = st.lists(
    st.sampled_from(["[Interface]", "[Peer]", "[", "#"])
    | st.builds("{}={}".format, names, values)
    | st.text(st.characters(), max_size=20)
).map("\n".join)


@given(st.text(st.characters()) | near_misses)
def test_any_text_is_read_without_loss_or_refused(text: str) -> None:
    with suppress(ConfigFileError):
        assert str(parse(text)) == text


@given(files())
def test_a_written_file_reads_as_what_was_written(file: tuple[InterfaceConfig, str]) -> None:
    config, text = file
    assert parse(text).config == config
    assert str(parse(text)) == text


@given(files())
def test_strip_keeps_what_wg_knows_and_is_idempotent(file: tuple[InterfaceConfig, str]) -> None:
    config, text = file
    stripped = parse(text).strip()
    kept = InterfaceConfig(
        private_key=config.private_key, listen_port=config.listen_port, fwmark=config.fwmark, peers=config.peers
    )
    assert parse(stripped).config == kept
    assert parse(stripped).strip() == stripped


@settings(max_examples=examples(30))
@given(files(), configs)
def test_a_rewritten_file_has_the_new_values_and_its_comments(
    file: tuple[InterfaceConfig, str], other: InterfaceConfig
) -> None:
    config, text = file
    before = parse(text)
    assert str(rewritten(before, config)) == text
    peers = {peer.public_key: peer for peer in (*config.peers[1:], *other.peers)}
    wanted = replace(other, peers=tuple(peers.values()))
    after = rewritten(before, wanted)
    assert {peer.public_key: peer for peer in after.config.peers} == peers  # new ones come last, whatever their place
    assert replace(after.config, peers=wanted.peers) == wanted
    assert after.lines.count("#MTU = 1") <= before.lines.count("#MTU = 1")
    assert rewritten(after, config).config.private_key == config.private_key


@given(key_bytes, st.integers(0, 43), st.text("= :#[]\t\n,x", min_size=1, max_size=2))
def test_a_corrupted_secret_is_not_shown(key: bytes, at: int, damage: str) -> None:
    secret = PrivateKey(key).base64()
    for line in ("PrivateKey = {}", "PrivateKey {}", "PresharedKey = {}", "{}"):
        text = "[Peer]\n" + line.format(secret[:at] + damage + secret[at:])
        with pytest.raises(ConfigFileError) as caught:
            parse(text)
        longest = max(secret[:at], secret[at:].rstrip("="), key=len)
        assert longest not in str(caught.value)
        assert longest not in repr(caught.value)
