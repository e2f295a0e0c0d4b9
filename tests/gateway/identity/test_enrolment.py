"""A device is enrolled by a client certificate, and loses its session when that is not accepted any more."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.gateway.identity.authority import CLIENT, Authority, Signed
from wgpy.errors import ConfigError
from wgpy.gateway.identity.enrolment import Verifiers, enrol, prove
from wgpy.gateway.policy import certificates as policy
from wgpy.gateway.policy.certificates import Proof
from wgpy.gateway.policy.people import Device, User
from wgpy.gateway.policy.sessions import Reason
from wgpy.gateway.service.certificates import Certificates
from wgpy.gateway.store import audit, certificates, devices, endpoint, state, users
from wgpy.gateway.store.database import Database
from wgpy.keys import PublicKey

URL = "https://vpn.example.org"
KEY, OTHER = PublicKey(bytes(range(32))), PublicKey(bytes(range(1, 33)))


@dataclass
class Clock:
    """The time, which tests turn."""

    now: float


@dataclass
class Gate:
    """A gateway that accepts the certificates of an authority."""

    database: Database
    root: Authority
    crl: Path
    clock: Clock
    verifiers: Verifiers = field(default_factory=Verifiers)

    def sign(self, signed: Signed, proof: Proof) -> bytes:
        command = ["openssl", "dgst", "-sha256", "-sign", str(signed.key)]
        return subprocess.run(command, input=proof.message(), capture_output=True, check=True).stdout

    def proof(self, name: str = "laptop", key: PublicKey = KEY) -> Proof:
        return Proof(url=URL, device=name, public_key=key, at=int(self.clock.now))

    def enrol(self, signed: Signed, proof: Proof | None = None, signature: bytes | None = None) -> Device:
        proof = proof or self.proof()
        signature = self.sign(signed, proof) if signature is None else signature
        with self.database.read() as connection:
            accepted = prove(connection, self.verifiers, signed.pem(), proof, signature, self.clock.now)
        with self.database.change("certificate") as change:
            return enrol(change, signed.pem(), proof, accepted).device

    def revoke(self, *signed: Signed, days: int = 30) -> None:
        self.root.revoked += [each.serial for each in signed]
        self.root.crl(self.crl, days)

    def refusal(self, name: str = "laptop") -> Reason | None:
        policy, _ = state.read(self.database)
        return policy.terms(name, self.clock.now, float("inf"), self.clock.now).refusal


@pytest.fixture
def gate(database: Database, tmp_path: Path) -> Gate:
    root = Authority.root(tmp_path / "ca")
    clock = Clock(0.0)
    database.clock = lambda: clock.now
    crl = root.crl(tmp_path / "list.crl", 30)
    with database.change("root") as change:
        endpoint.replace(change, replace(endpoint.find(change.connection), url=URL))
        certificates.set_authority(change, policy.Authority(ca=root.pem(), crl=str(crl)))
    import time

    clock.now = float(int(time.time()) + 600)  # after all certificates of these tests were made
    return Gate(database, root, crl, clock)


def test_a_device_is_enrolled_bound_and_signed_in_again(gate: Gate) -> None:
    alice = gate.root.sign("/O=Example/CN=alice", CLIENT)
    device = gate.enrol(alice)
    assert (device.name, device.user, device.public_key) == ("laptop", "alice", KEY)
    assert (device.signed_in_at, device.certificate) == (gate.clock.now, "")
    gate.clock.now += 100
    assert gate.enrol(alice).signed_in_at == gate.clock.now
    with gate.database.read() as connection:
        (bound,) = certificates.find_all(connection)
        assert (bound.subject, bound.serial) == ("CN=alice,O=Example", f"{alice.serial:X}")
        assert {each["who"] for each in audit.find_last(connection, 3)} == {"certificate"}
    with gate.database.change("root") as change:
        devices.remove(change, "laptop")
    assert gate.enrol(alice, gate.proof("phone", OTHER)).name == "phone"


def with_proof(**other: object) -> Callable[[Gate, Signed], object]:
    """Send a proof that is not the one that was signed."""

    def attempt(gate: Gate, signed: Signed) -> object:
        proof = gate.proof()
        return gate.enrol(signed, replace(proof, **other), gate.sign(signed, proof))  # type: ignore[arg-type]

    return attempt


def after(change_it: Callable[[Gate], object]) -> Callable[[Gate, Signed], object]:
    return lambda gate, signed: (change_it(gate), gate.enrol(signed))


def disable(gate: Gate) -> None:
    with gate.database.change("root") as change:
        users.replace(change, User(name="alice", groups=frozenset({"staff"}), enabled=False))


def expire(gate: Gate) -> None:
    with gate.database.change("root") as change:
        users.replace(change, User(name="alice", groups=frozenset({"staff"}), expires=gate.clock.now - 1))


def unset(gate: Gate) -> None:
    with gate.database.change("root") as change:
        certificates.set_authority(change, None)


def take_key(gate: Gate) -> None:
    with gate.database.change("root") as change:
        users.add(change, User(name="bob"))
    gate.enrol(gate.root.sign("/CN=bob", CLIENT), gate.proof("bobs"))


def take_name(gate: Gate) -> None:
    with gate.database.change("root") as change:
        users.add(change, User(name="bob"))
    gate.enrol(gate.root.sign("/CN=bob", CLIENT), gate.proof("laptop", OTHER))


def twice(gate: Gate, signed: Signed) -> object:
    proof = gate.proof()
    signature = gate.sign(signed, proof)
    gate.enrol(signed, proof, signature)
    return gate.enrol(signed, proof, signature)


def revoked(gate: Gate, signed: Signed) -> object:
    gate.revoke(signed)
    return gate.enrol(signed)


def disabled_device(gate: Gate, signed: Signed) -> object:
    gate.enrol(signed)
    with gate.database.change("root") as change:
        devices.enable(change, "laptop", enabled=False)
    gate.clock.now += 10
    return gate.enrol(signed)


def too_many(gate: Gate, signed: Signed) -> object:
    with gate.database.change("root") as change:
        endpoint.replace(change, replace(endpoint.find(change.connection), devices_max=1))
    gate.enrol(signed, gate.proof("phone", OTHER))
    return gate.enrol(signed)


REFUSED: dict[str, tuple[Callable[[Gate, Signed], object], str]] = {
    "a proof for another key": (with_proof(public_key=OTHER), "signature is not by the certificate's key"),
    "a proof for another name": (with_proof(device="phone"), "signature is not by the certificate's key"),
    "a proof for another gateway": (with_proof(url="https://evil.org"), "the proof is for 'https://evil.org'"),
    "an old proof": (with_proof(at=1000), "set both clocks"),
    "a proof that was used": (twice, "used already"),
    "no signature": (lambda gate, signed: gate.enrol(signed, signature=b""), "signature"),
    "another person's key": (
        lambda gate, signed: gate.enrol(signed, signature=gate.sign(gate.root.sign("/CN=bob", CLIENT), gate.proof())),
        "signature",
    ),
    "a certificate of nobody": (
        lambda gate, _: gate.enrol(gate.root.sign("/CN=nobody", CLIENT)), "there is no user of that name",
    ),
    "a certificate for servers": (
        lambda gate, _: gate.enrol(gate.root.sign("/CN=alice", "extendedKeyUsage = serverAuth\n")), "not accepted",
    ),
    "a revoked certificate": (revoked, "is revoked"),
    "a disabled user": (after(disable), "is disabled"),
    "a user who has expired": (after(expire), "has expired"),
    "no authority": (after(unset), "accepts no certificates"),
    "the key of another's device": (after(take_key), "another device has this key"),
    "the name of another's device": (after(take_name), "device laptop: exists already"),
    "too many devices": (too_many, "user alice has the 1 devices"),
    "a disabled device": (disabled_device, "device laptop is disabled"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_proved_changes_nothing(case: str, gate: Gate) -> None:
    attempt, why = REFUSED[case]
    alice = gate.root.sign("/CN=alice", CLIENT)
    with pytest.raises(ConfigError) as error:
        attempt(gate, alice)
    assert why in str(error.value)
    with gate.database.read() as connection:
        assert [each for each in certificates.find_all(connection) if each.proved_at != gate.proof().at] == [] or (
            case == "a disabled device"
        )
        assert {each.user for each in devices.find_all(connection)} <= ({"bob"} if "another's" in case else {"alice"})


class TestRevocation:
    def test_who_is_revoked_loses_the_session_and_nobody_else(self, gate: Gate) -> None:
        with gate.database.change("root") as change:
            users.add(change, User(name="bob"))
        alice, bob = gate.root.sign("/CN=alice", CLIENT), gate.root.sign("/CN=bob", CLIENT)
        gate.enrol(alice)
        gate.enrol(bob, gate.proof("bobs", OTHER))
        judge = Certificates(gate.database, Verifiers())
        judge.check(gate.clock.now)
        assert gate.refusal() is None
        gate.revoke(alice)
        judge.check(gate.clock.now)
        assert gate.refusal() is Reason.CERTIFICATE
        assert gate.refusal("bobs") is None
        with gate.database.read() as connection:
            assert devices.find(connection, "laptop").certificate == "the certificate 'CN=alice' is revoked"

    def test_nothing_is_verified_or_written_while_nothing_changes(
        self, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate.enrol(gate.root.sign("/CN=alice", CLIENT))
        verifiers = Verifiers()
        judge = Certificates(gate.database, verifiers)
        judge.check(gate.clock.now)
        with gate.database.read() as connection:
            verifier = verifiers.verifier(certificates.find_authority(connection))
        monkeypatch.setattr(verifier, "accept", lambda *_: pytest.fail("verified again"))
        before = state.last_change(gate.database)
        judge.check(gate.clock.now + 20)
        assert state.last_change(gate.database) == before

    def test_a_certificate_or_list_that_expires_closes_and_a_new_one_opens(self, gate: Gate) -> None:
        gate.revoke(days=1)
        gate.enrol(gate.root.sign("/CN=alice", CLIENT, days=3))
        judge = Certificates(gate.database, Verifiers())
        judge.check(gate.clock.now)
        assert gate.refusal() is None
        judge.check(gate.clock.now + 86_400)
        assert gate.refusal() is Reason.CERTIFICATE
        gate.revoke(days=30)
        judge.check(gate.clock.now + 86_400)
        assert gate.refusal() is None
        judge.check(gate.clock.now + 4 * 86_400)
        assert gate.refusal() is Reason.CERTIFICATE
        judge.check(gate.clock.now)  # somebody sets the date back
        assert gate.refusal() is None

    def test_a_file_that_is_being_written_is_looked_at_twice(self, gate: Gate) -> None:
        gate.enrol(gate.root.sign("/CN=alice", CLIENT))
        judge = Certificates(gate.database, Verifiers())
        judge.check(gate.clock.now)
        whole = gate.crl.read_bytes()
        gate.crl.write_bytes(whole[:100])
        judge.check(gate.clock.now)
        assert gate.refusal() is None
        judge.check(gate.clock.now)
        assert gate.refusal() is Reason.CERTIFICATE
        gate.crl.write_bytes(whole)
        judge.check(gate.clock.now)
        assert gate.refusal() is None
        gate.crl.unlink()
        judge.check(gate.clock.now)
        judge.check(gate.clock.now)
        assert gate.refusal() is Reason.CERTIFICATE
        Certificates(gate.database, Verifiers()).check(gate.clock.now)  # nor after a restart
        assert gate.refusal() is Reason.CERTIFICATE

    def test_another_authority_and_none_close(self, gate: Gate, tmp_path: Path) -> None:
        gate.enrol(gate.root.sign("/CN=alice", CLIENT))
        judge = Certificates(gate.database, Verifiers())
        for authority in (policy.Authority(ca=Authority.root(tmp_path / "new").pem()), None):
            with gate.database.change("root") as change:
                certificates.set_authority(change, authority)
            judge.check(gate.clock.now)
            assert gate.refusal() is Reason.CERTIFICATE
        with gate.database.change("root") as change:
            certificates.unbind(change, "laptop")
        assert gate.refusal() is None
