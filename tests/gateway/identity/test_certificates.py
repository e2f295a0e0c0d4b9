"""Client certificates made by openssl, good ones and all kinds of wrong ones."""

from __future__ import annotations

import ssl
import subprocess
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from tests.gateway.identity import authority as module
from tests.gateway.identity.authority import CLIENT, Authority, Signed
from wgpy.errors import ConfigError
from wgpy.gateway.identity.certificates import Accepted, NotAccepted, Verifier, check_proof, read_lists
from wgpy.gateway.policy import certificates as policy
from wgpy.gateway.policy.certificates import NameFrom, Proof
from wgpy.keys import PublicKey

NOW = time.time() + 7200  # after all certificates of these tests are made, however late these tests have their turn
DAY = 86_400
UPN = "subjectAltName = otherName:1.3.6.1.4.1.311.20.2.3;UTF8:"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.root(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def issuing(root: Authority) -> Authority:
    return root.authority("Issuing")


def verifier(root: Authority, lists: bytes | None = None, name_from: NameFrom = NameFrom.CN) -> Verifier:
    return Verifier(policy.Authority(ca=root.pem(), name_from=name_from), lists)


def accept(
    root: Authority, signed: Signed, *between: Authority, lists: bytes | None = None,
    name_from: NameFrom = NameFrom.CN, wall: float = NOW,
) -> Accepted:  # fmt: skip
    return verifier(root, lists, name_from).accept(signed.pem(*(each.signed for each in between)), wall)


@pytest.mark.parametrize("key", ["ec", "rsa", "ed25519"])
@pytest.mark.parametrize("is_intermediate", [False, True])
def test_a_good_certificate_is_accepted_until_something_expires(
    key: str, is_intermediate: bool, root: Authority, issuing: Authority
) -> None:
    by = [issuing] if is_intermediate else []
    signed = (issuing if is_intermediate else root).sign("/O=Example/CN=alice", CLIENT, days=5, key=key)
    accepted = accept(root, signed, *by)
    assert accepted.name == "alice"
    assert 4.9 * DAY < accepted.until - NOW < 5.1 * DAY
    with pytest.raises(NotAccepted, match="not valid at validation time"):
        accept(root, signed, *by, wall=NOW + 6 * DAY)
    with pytest.raises(NotAccepted, match="not valid at validation time"):
        accept(root, signed, *by, wall=NOW - DAY)
    if is_intermediate:
        with pytest.raises(NotAccepted, match="not accepted"):
            accept(root, signed)
        bundle = policy.Authority(ca=root.pem() + issuing.pem())
        assert Verifier(bundle, None).accept(signed.pem(), NOW).name == "alice"
        assert Verifier(policy.Authority(ca=issuing.pem()), None).accept(signed.pem(), NOW).name == "alice"


@pytest.mark.parametrize(
    ("kind", "extensions", "name"),
    [
        (NameFrom.CN, "", "alice"),
        (NameFrom.EMAIL, "subjectAltName = email:alice@example.org\n", "alice@example.org"),
        (NameFrom.EMAIL, "subjectAltName = DNS:x.org, email:alice@example.org\n", "alice@example.org"),
        (NameFrom.UPN, f"{UPN}alice@corp.example\n", "alice@corp.example"),
        (NameFrom.EMAIL, "", None),
        (NameFrom.EMAIL, "subjectAltName = email:a@x.org, email:b@x.org\n", None),
        (NameFrom.UPN, "subjectAltName = email:alice@example.org\n", None),
    ],
)
def test_who_is_meant(kind: NameFrom, extensions: str, name: str | None, root: Authority) -> None:
    signed = root.sign("/CN=alice", CLIENT + extensions)
    if name is None:
        with pytest.raises(NotAccepted, match="names of the kind"):
            accept(root, signed, name_from=kind)
    else:
        assert accept(root, signed, name_from=kind).name == name


def test_two_common_names_are_nobody(root: Authority) -> None:
    with pytest.raises(NotAccepted, match="it has 2 names"):
        accept(root, root.sign("/CN=alice/CN=bob", CLIENT))


def constrained(what: str) -> Callable[[Authority], tuple[Signed, list[Authority]]]:
    def make(root: Authority) -> tuple[Signed, list[Authority]]:
        below = root.authority("Constrained", f"nameConstraints = critical, {what}\n")
        return below.sign("/CN=alice", f"{CLIENT}subjectAltName = email:alice@evil.org\n"), [below]

    return make


def with_ca(extensions: str) -> Callable[[Authority], tuple[Signed, list[Authority]]]:
    def make(root: Authority) -> tuple[Signed, list[Authority]]:
        below = Authority(module.made(root.directory, "/CN=Below", extensions, root.signed), root.directory)
        return below.sign("/CN=alice", CLIENT), [below]

    return make


def too_long(root: Authority) -> tuple[Signed, list[Authority]]:
    one = Authority(
        module.made(root.directory, "/CN=Short", module.CA.replace("TRUE", "TRUE, pathlen:0"), root.signed),
        root.directory,
    )
    two = one.authority("Second")
    return two.sign("/CN=alice", CLIENT), [one, two]


def by_a_leaf(root: Authority) -> tuple[Signed, list[Authority]]:
    leaf = Authority(root.sign("/CN=mallory", CLIENT), root.directory)
    return leaf.sign("/CN=alice", CLIENT), [leaf]


def by_another(root: Authority) -> tuple[Signed, list[Authority]]:
    """An authority of the same name, which the person sends along."""
    other = Authority.root(root.directory.with_name("other"), "Root")
    return other.sign("/CN=alice", CLIENT), [other]


WRONG: dict[str, tuple[Callable[[Authority], tuple[Signed, list[Authority]]], str]] = {
    "no usage": (lambda root: (root.sign("/CN=alice"), []), "extended key usage does not have clientAuth"),
    "a server's": (lambda root: (root.sign("/CN=alice", "extendedKeyUsage = serverAuth\n"), []), "required EKU"),
    "for anything": (
        lambda root: (root.sign("/CN=alice", "extendedKeyUsage = anyExtendedKeyUsage\n"), []), "required EKU",
    ),
    "not for signatures": (
        lambda root: (root.sign("/CN=alice", f"{CLIENT}keyUsage = keyEncipherment\n"), []), "digitalSignature",
    ),
    "a weak key": (lambda root: (root.sign("/CN=alice", CLIENT, key="weak"), []), "fewer than 2048 bits"),
    "an authority's own": (lambda root: (root.authority("CA").signed, []), "basicConstraints.cA must not"),
    "another authority": (by_another, "not accepted"),
    "signed by a person": (by_a_leaf, "CA certificate has no basicConstraints"),
    "a path that is too long": (too_long, "path length constraint"),
    "an authority for servers": (with_ca(f"{module.CA}extendedKeyUsage = serverAuth\n"), "EKU"),
    "an authority that may not sign": (with_ca(module.CA.replace("keyCertSign, ", "")), "keyCertSign"),
    "no authority": (with_ca(module.CA.replace("CA:TRUE", "CA:FALSE")), "basicConstraints.cA must be asserted"),
    "constrained to other names": (constrained("permitted;email:example.org"), "name constraints"),
    "names that are excluded": (constrained("excluded;email:evil.org"), "name constraint"),
    "constrained to other kinds of names": (constrained("permitted;DNS:example.org"), "which do not apply"),
    "a critical extension that nobody knows": (
        lambda root: (root.sign("/CN=alice", f"{CLIENT}1.2.3.4 = critical, DER:0500\n"), []), "unaccounted-for",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_certificate_is_one_line(case: str, root: Authority) -> None:
    make, why = WRONG[case]
    signed, between = make(root)
    with pytest.raises(NotAccepted) as error:
        accept(root, signed, *between)
    assert why in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_name_constraints_are_kept_for_email(root: Authority) -> None:
    below = root.authority("Constrained", "nameConstraints = critical, permitted;email:example.org\n")
    good = below.sign("/CN=x", f"{CLIENT}subjectAltName = email:alice@example.org\n")
    assert accept(root, good, below, name_from=NameFrom.EMAIL).name == "alice@example.org"
    bad = below.sign("/CN=x", f"{CLIENT}subjectAltName = email:alice@evil.org\n")
    with pytest.raises(NotAccepted, match="name constraint"):
        accept(root, bad, below, name_from=NameFrom.EMAIL)


def test_easy_rsas_authorities_are_accepted(tmp_path: Path) -> None:
    """It leaves their extensions uncritical, as AWS's instructions have people do."""
    ca = module.CA.replace("critical, ", "")
    easy = Authority(module.made(tmp_path, "/CN=Easy-RSA CA", ca, None), tmp_path)
    assert accept(easy, easy.sign("/CN=alice", CLIENT)).name == "alice"


@pytest.mark.parametrize(
    "text", ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "\0" * 70_000]
)
def test_what_is_no_certificate_is_refused(text: str, root: Authority) -> None:
    with pytest.raises(NotAccepted):
        verifier(root).accept(text, NOW)
    with pytest.raises(ConfigError):
        Verifier(policy.Authority(ca=text), None)


def damaged(der: bytes) -> Iterator[bytes]:
    """The same with one byte changed, at many places."""
    for place in range(0, len(der), 3):
        yield der[:place] + bytes([der[place] ^ (1 << place % 8)]) + der[place + 1 :]


def pem(kind: str, der: bytes) -> bytes:
    return f"-----BEGIN {kind}-----\n{b64encode(der).decode()}\n-----END {kind}-----\n".encode()


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")  # as of a negative serial
def test_no_damage_is_more_than_a_refusal(root: Authority, issuing: Authority, tmp_path: Path) -> None:
    signed = issuing.sign("/CN=alice", f"{CLIENT}subjectAltName = email:alice@example.org\n")
    lists = root.crl(tmp_path / "1").read_bytes() + issuing.crl(tmp_path / "2").read_bytes()
    every = verifier(root, lists)
    assert every.accept(signed.pem(issuing.signed), NOW).name == "alice"
    for path, before in ((signed.certificate, ""), (issuing.signed.certificate, signed.pem())):
        for der in damaged(ssl.PEM_cert_to_DER_cert(path.read_text())):
            chain = before + pem("CERTIFICATE", der).decode() + ("" if before else issuing.pem())
            with pytest.raises(NotAccepted):
                every.accept(chain, NOW)
            with suppress(ConfigError):
                Verifier(policy.Authority(ca=pem("CERTIFICATE", der).decode()), None).accept(signed.pem(), NOW)
    good, bad = lists.split(b"-----END X509 CRL-----\n")[:2]
    for der in damaged(b64decode(b"".join(bad.splitlines()[1:]))):
        with pytest.raises(NotAccepted):
            accept(root, signed, issuing, lists=good + b"-----END X509 CRL-----\n" + pem("X509 CRL", der))


class TestLists:
    @pytest.fixture
    def lists(self, root: Authority, issuing: Authority, tmp_path: Path) -> Callable[[], bytes]:
        def write(days: int = 1) -> bytes:
            files = [each.crl(tmp_path / f"{number}.crl", days) for number, each in enumerate((root, issuing))]
            (tmp_path / "all.crl").write_bytes(b"".join(file.read_bytes() for file in files))
            found = read_lists(policy.Authority(ca=root.pem(), crl=str(tmp_path / "all.crl")))
            assert found
            return found

        return write

    def test_who_is_on_one_is_refused(self, root: Authority, issuing: Authority, lists: Callable[[], bytes]) -> None:
        alice, bob = issuing.sign("/CN=alice", CLIENT), issuing.sign("/CN=bob", CLIENT)
        assert accept(root, alice, issuing, lists=lists()).until - NOW < 1.1 * DAY  # the lists' own end
        issuing.revoked.append(alice.serial)
        with pytest.raises(NotAccepted, match="the certificate 'CN=alice' is revoked"):
            accept(root, alice, issuing, lists=lists())
        assert accept(root, bob, issuing, lists=lists()).name == "bob"

    def test_an_authority_on_one_takes_its_people_with_it(
        self, root: Authority, lists: Callable[[], bytes], tmp_path: Path
    ) -> None:
        below = root.authority("Fallen")
        alice = below.sign("/CN=alice", CLIENT)
        every = lists() + below.crl(tmp_path / "below.crl").read_bytes()
        assert accept(root, alice, below, lists=every).name == "alice"
        root.revoked.append(below.signed.serial)
        every = lists() + below.crl(tmp_path / "below.crl").read_bytes()
        with pytest.raises(NotAccepted, match="'CN=Fallen' is revoked"):
            accept(root, alice, below, lists=every)

    def test_one_that_is_missing_old_or_forged_closes(
        self, root: Authority, issuing: Authority, lists: Callable[[], bytes], tmp_path: Path
    ) -> None:
        carol = issuing.sign("/CN=carol", CLIENT)
        only = root.crl(tmp_path / "root.crl").read_bytes()
        with pytest.raises(NotAccepted, match="there is no list of certificates that 'CN=Issuing' has revoked"):
            accept(root, carol, issuing, lists=only)
        with pytest.raises(NotAccepted, match="is out of date"):
            accept(root, carol, issuing, lists=lists(), wall=NOW + 2 * DAY)
        # Somebody with the same name, and so another key, says that nobody is revoked.
        forged = Authority.root(tmp_path / "forged", "Issuing").crl(tmp_path / "forged.crl").read_bytes()
        with pytest.raises(NotAccepted, match="there is no list"):
            accept(root, carol, issuing, lists=only + forged)
        with pytest.raises(NotAccepted, match="cannot be read"):
            accept(root, carol, issuing, lists=b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
        with pytest.raises(NotAccepted, match="cannot be read"):
            accept(root, carol, issuing, lists=b"")
        with pytest.raises(NotAccepted, match="No such file"):
            read_lists(policy.Authority(ca=root.pem(), crl=str(tmp_path / "nowhere")))

    def test_the_newest_counts(self, root: Authority, issuing: Authority, lists: Callable[[], bytes]) -> None:
        dave = issuing.sign("/CN=dave", CLIENT)
        old = lists()
        time.sleep(1.1)  # openssl dates lists by the second
        issuing.revoked.append(dave.serial)
        for both in (old + lists(), lists() + old):
            with pytest.raises(NotAccepted, match="revoked"):
                accept(root, dave, issuing, lists=both)


class TestProofs:
    PROOF = Proof(url="https://vpn.example.org", device="laptop", public_key=PublicKey(bytes(range(32))), at=1000)

    @pytest.mark.parametrize("key", ["ec", "rsa", "ed25519"])
    def test_what_openssl_signs_is_a_proof_for_that_alone(self, key: str, root: Authority, tmp_path: Path) -> None:
        signed = root.sign("/CN=alice", CLIENT, key=key)
        leaf = x509.load_pem_x509_certificate(signed.certificate.read_bytes())
        (tmp_path / "message").write_bytes(self.PROOF.message())
        how = ["-rawin"] if key == "ed25519" else ["-rawin", "-digest", "sha256"]
        command = ["openssl", "pkeyutl", "-sign", "-inkey", str(signed.key), *how, "-in", str(tmp_path / "message")]
        signature = subprocess.run(command, capture_output=True, check=True).stdout
        check_proof(leaf, self.PROOF, signature)
        others = [
            replace(self.PROOF, public_key=PublicKey(bytes(range(1, 33)))),
            replace(self.PROOF, device="phone"),
            replace(self.PROOF, url="https://vpn.evil.org"),
            replace(self.PROOF, at=1001),
            replace(self.PROOF, url="https://vpn.example.org\nlaptop", device=""),
        ]
        for other in others:
            with pytest.raises(NotAccepted, match="signature"):
                check_proof(leaf, other, signature)
        for forged in (b"", signature[:-1], signature + b"\0", bytes(len(signature))):
            with pytest.raises(NotAccepted):
                check_proof(leaf, self.PROOF, forged)
        another = x509.load_pem_x509_certificate(root.sign("/CN=alice", CLIENT, key=key).certificate.read_bytes())
        with pytest.raises(NotAccepted):
            check_proof(another, self.PROOF, signature)

    @pytest.mark.parametrize(
        ("wall", "is_fresh"), [(1000, True), (1299, True), (1301, False), (701, True), (699, False)]
    )
    def test_one_of_another_time_is_refused(self, wall: float, is_fresh: bool) -> None:
        if is_fresh:
            self.PROOF.check_fresh(wall)
        else:
            with pytest.raises(ConfigError, match="set both clocks"):
                self.PROOF.check_fresh(wall)
