"""Attempts to sign in: who is kept waiting, who is not, and how much is remembered."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

from wgpy.gateway.policy.throttle import Limit, Throttle

HOME, CAFE = ip_address("192.0.2.1"), ip_address("198.51.100.7")


def throttle(size: int = 100) -> Throttle:
    return Throttle(Limit(3, 60.0), Limit(5, 10.0), size)


def test_an_account_is_guarded_wherever_the_attempts_come_from() -> None:
    made = throttle()
    strangers = [ip_address(f"203.0.113.{number}") for number in range(5)]
    assert [made.attempt("alice", stranger, 0.0) for stranger in strangers] == [0.0, 0.0, 0.0, 60.0, 60.0]
    assert made.attempt("bob", HOME, 0.0) == 0.0
    assert made.attempt("alice", HOME, 59.0) == 1.0
    assert made.attempt("alice", HOME, 60.0) == 0.0
    assert made.attempt("alice", HOME, 60.0) == 60.0


def test_an_address_is_guarded_whichever_account_it_tries() -> None:
    made = throttle()
    assert [made.attempt(f"user{number}", CAFE, 0.0) for number in range(7)] == [0.0] * 5 + [10.0, 10.0]
    assert made.attempt("user7", HOME, 0.0) == 0.0
    assert made.attempt("user7", ip_address("::ffff:198.51.100.7"), 0.0) == 10.0, "the same address, mapped"
    assert made.attempt("user7", CAFE, 10.0) == 0.0


def test_all_addresses_of_a_network_of_64_bits_are_one() -> None:
    made = throttle()
    addresses = [IPv6Address((0x20010DB8 << 96) + number) for number in range(6)]
    assert [made.attempt(f"user{n}", address, 0.0) for n, address in enumerate(addresses)] == [0.0] * 5 + [10.0]
    assert made.attempt("user", ip_address("2001:db8:0:1::1"), 0.0) == 0.0


def test_who_signs_in_well_is_never_kept_waiting() -> None:
    made = throttle()
    for number in range(1000):
        assert made.attempt(f"user{number % 7}", HOME, 0.0) == 0.0
        made.succeeded(f"user{number % 7}", HOME, 0.0)


def test_attempts_at_the_same_time_count_although_none_has_been_answered() -> None:
    made = throttle()
    assert [made.attempt("alice", HOME, 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 60.0]
    made.succeeded("alice", HOME, 0.0, wholly=False)
    assert made.attempt("alice", HOME, 0.0) == 0.0
    assert made.attempt("alice", HOME, 0.0) == 60.0


def test_a_guesser_elsewhere_does_not_keep_the_owner_out_of_an_address_that_she_came_from() -> None:
    made = throttle()
    assert made.attempt("alice", HOME, 0.0) == 0.0
    made.succeeded("alice", HOME, 0.0)
    while not made.attempt("alice", CAFE, 1.0):
        pass
    assert made.attempt("alice", CAFE, 1.0) > 0
    assert [made.attempt("alice", HOME, 1.0) for _ in range(4)] == [0.0, 0.0, 0.0, 60.0], "guarded by itself"


def test_a_right_password_without_the_code_makes_no_address_known() -> None:
    """Who knows the password and guesses codes has as many attempts as anybody."""
    made, guesses = throttle(), 0
    for _ in range(20):
        if made.attempt("alice", CAFE, 0.0):
            break
        made.succeeded("alice", CAFE, 0.0, wholly=False)  # the password
        if made.attempt("alice", CAFE, 0.0):
            break
        guesses += 1  # a wrong code
    assert guesses == 3, "the fourth time, none is left for the password either"


def test_memory_is_bounded_and_names_without_end_do_not_free_a_guarded_account() -> None:
    made = throttle(size=50)
    while not made.attempt("alice", CAFE, 0.0):
        pass
    for number in range(10_000):
        made.attempt(f"user{number}", ip_address("203.0.113.9"), 0.0)  # its address is stopped after five
    assert made.attempt("alice", HOME, 0.0) > 0
    for number in range(10_000):
        address = IPv6Address(number << 64)
        made.attempt(f"user{number}", address, 0.0)
        made.succeeded(f"user{number}", address, 0.0)
    assert len(made) <= 150


def test_a_client_without_an_address_is_held_to_the_accounts_limit_only() -> None:
    made = throttle()
    assert [made.attempt("alice", None, 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 60.0]
    made.succeeded("alice", None, 0.0)
    assert made.attempt("alice", None, 0.0) == 0.0
