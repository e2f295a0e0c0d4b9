"""Signing in at a provider: what is asked, and every lie that is not believed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from joserfc.jwk import ECKey

from tests.gateway.identity.oidc.fake import HERE, ISSUER, SETTINGS, Fake
from wgpy.errors import WgpyError
from wgpy.gateway.identity.directory import CannotAsk, Confirmed, Refused, Unavailable
from wgpy.gateway.identity.oidc.http import LONGEST
from wgpy.gateway.identity.oidc.provider import FRESH, KEYS_RETRY, PATIENCE, RETRY
from wgpy.gateway.identity.oidc.tokens import read_keys

OTHER = ECKey.generate_key("P-256", {"kid": "one"})
Lie = Callable[[Fake], object]


def test_who_comes_back_is_who_the_provider_says() -> None:
    fake = Fake()
    found = asyncio.run(fake.sign_in())
    assert (found.person.name, found.person.source, found.person.subject) == ("alice", "corp", "4711")
    assert found.person.groups == {"vpn-users"}
    assert {*json.loads(found.token)} == {"id_token", "refresh_token"}  # and no access token
    assert fake.asked["/userinfo"] == 0  # the groups were in the token


def test_the_request_for_authentication_has_pkce_and_values_that_nobody_can_guess() -> None:
    fake = Fake()
    url, attempt = asyncio.run(fake.provider.begin(HERE))
    again, _ = asyncio.run(fake.provider.begin(HERE))
    query, other = (dict(parse_qsl(urlsplit(each).query)) for each in (url, again))
    assert url.startswith(f"{ISSUER}/auth?")
    assert query["response_type"] == "code"
    assert query["redirect_uri"] == HERE
    assert query["scope"] == "openid profile email groups offline_access"
    assert query["code_challenge_method"] == "S256"
    assert attempt.verifier not in url
    for key in ("state", "nonce", "code_challenge"):
        assert len(query[key]) >= 43  # 256 bits in base64
        assert query[key] != other[key]


def test_groups_that_are_not_in_the_token_are_asked_for() -> None:
    fake = Fake()
    fake.claims = {"groups": None}
    assert asyncio.run(fake.sign_in()).person.groups == {"from userinfo"}


def test_a_client_without_a_secret_and_one_whose_provider_wants_it_in_the_form() -> None:
    public = Fake(secret=b"")
    asyncio.run(public.sign_in())
    assert public.form["client_id"] == "vpn"
    assert "client_secret" not in public.form
    posting = Fake()
    posting.document = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    asyncio.run(posting.sign_in())
    assert posting.form["client_secret"] == "a secret"


LIES: dict[str, tuple[Lie, str]] = {
    "another issuer in the token": (
        lambda fake: fake.claims.update(iss="https://evil.example"),
        "cannot be believed: invalid_claim: iss",
    ),
    "another issuer in the document": (
        lambda fake: fake.document.update(issuer="https://evil.example"),
        "calls itself 'https://evil.example', and not https://id.example.org",
    ),
    "an issuer with a slash more": (lambda fake: fake.document.update(issuer=f"{ISSUER}/"), "exactly as the provider"),
    "another audience": (lambda fake: fake.claims.update(aud="wiki"), "invalid_claim: aud"),
    "no audience": (lambda fake: fake.claims.update(aud=[]), "aud"),
    "several audiences without azp": (lambda fake: fake.claims.update(aud=["vpn", "wiki"]), "invalid_claim: azp"),
    "another authorized party": (lambda fake: fake.claims.update(azp="wiki"), "invalid_claim: azp"),
    "another nonce": (lambda fake: fake.claims.update(nonce="replayed"), "invalid_claim: nonce"),
    "no nonce": (lambda fake: fake.claims.update(nonce=None), "invalid_claim: nonce"),
    "a token that has expired": (lambda fake: fake.claims.update(exp=int(fake.now) - 61), "expired_token: exp"),
    "a token that never expires": (lambda fake: fake.claims.update(exp=None), "missing_claim: exp"),
    "a token whose end is no time": (lambda fake: fake.claims.update(exp="never"), "invalid_claim: exp"),
    "a token of the future": (lambda fake: fake.claims.update(iat=int(fake.now) + 61), "invalid_claim: iat"),
    "a token that is not yet good": (lambda fake: fake.claims.update(nbf=int(fake.now) + 61), "invalid_claim: nbf"),
    "nobody": (lambda fake: fake.claims.update(sub=None), "missing_claim: sub"),
    "a number for a subject": (lambda fake: fake.claims.update(sub=4711), "invalid_claim: sub"),
    "no signature": (lambda fake: fake.header.update(alg="none"), "unsupported_algorithm"),
    "a signature by the public key": (lambda fake: fake.header.update(alg="HS256"), "unsupported_algorithm"),
    "an algorithm that the provider does not use": (
        lambda fake: fake.document.update(id_token_signing_alg_values_supported=["RS256"]),
        "unsupported_algorithm",
    ),
    "a signature by another key of the same name": (
        lambda fake: setattr(fake, "published", [OTHER]),
        "cannot be believed: bad_signature",
    ),
    "a key that is not published": (lambda fake: fake.header.update(kid="two"), "a key that it does not publish"),
    "no keys": (lambda fake: setattr(fake, "published", []), "has no key that signatures can be checked with"),
    "no ID token": (lambda fake: fake.tokens.update(id_token=None), "there is no ID token"),
    "an ID token that is none": (lambda fake: fake.tokens.update(id_token="a.b.c"), "cannot be"),
    "an ID token that is huge": (lambda fake: fake.tokens.update(id_token="x" * 70_000), "there is no ID token"),
    "somebody else's groups": (
        lambda fake: (fake.claims.update(groups=None), fake.userinfo.update(sub="0815")),
        "says who somebody else is",
    ),
    "no token endpoint": (lambda fake: fake.document.update(token_endpoint=None), "token_endpoint"),
    "a token endpoint in the clear": (
        lambda fake: fake.document.update(token_endpoint="http://id.example.org/token"),
        "expected an address that begins with https://",
    ),
    "keys from a file": (lambda fake: fake.document.update(jwks_uri="file:///etc/passwd"), "begins with https://"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_not_believed_and_named_in_one_line(lie: str) -> None:
    tell, why = LIES[lie]
    fake = Fake()
    tell(fake)
    with pytest.raises(Unavailable) as error:
        asyncio.run(fake.sign_in())
    assert why in str(error.value)
    assert_is_one_line(error.value)


def assert_is_one_line(error: WgpyError) -> None:
    """It names the directory, and shows no secret."""
    text = str(error)
    assert text.startswith("directory corp: ")
    assert text.isprintable()
    assert len(text) < 500
    assert not {word for word in ("secret", "a code", "access token", "refresh 1") if word in text}


def test_a_clock_that_is_a_minute_off_is_no_lie() -> None:
    fake = Fake()
    fake.claims = {"iat": int(fake.now) + 59, "exp": int(fake.now) - 59}
    assert asyncio.run(fake.sign_in()).person.name == "alice"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"state": "forged"}, "not to the question that this browser asked"),
        ({"state": ""}, "not to the question that this browser asked"),
        ({"state": "\u00fc"}, "not to the question that this browser asked"),
        ({"code": "stolen"}, "does not know this sign-in"),
        ({"code": ""}, "does not sign you in (it does not say why)"),
        ({"error": "access_denied", "error_description": "call 0900 1234"}, "does not sign you in (access_denied)"),
        ({"error": "<script>alert(1)</script>"}, "does not sign you in (it does not say why)"),
        ({"iss": "https://evil.example"}, "another provider's"),
    ],
)
def test_an_answer_that_is_forged_or_says_no_is_refused(answer: dict[str, str], why: str) -> None:
    with pytest.raises(Refused) as error:
        asyncio.run(Fake().sign_in(**answer))
    assert why in str(error.value)
    assert_is_one_line(error.value)


def test_a_provider_that_says_its_name_must_say_it_each_time() -> None:
    fake = Fake()
    fake.document = {"authorization_response_iss_parameter_supported": True}
    assert asyncio.run(fake.sign_in(iss=ISSUER))
    with pytest.raises(Refused, match="another provider's"):
        asyncio.run(fake.sign_in())


def test_a_code_is_good_once_and_for_the_browser_that_asked() -> None:
    async def scenario() -> None:
        fake = Fake()
        attempt, answer = await fake.go()
        await fake.provider.finish(attempt, answer, HERE)
        with pytest.raises(Refused, match="does not know this sign-in"):
            await fake.provider.finish(attempt, answer, HERE)
        mine, _ = await fake.go()
        _, victims = await fake.go()
        with pytest.raises(Refused, match="not to the question that this browser asked"):
            await fake.provider.finish(mine, victims, HERE)
        asked = fake.asked["/token"]
        with pytest.raises(Refused, match="does not know"):  # the code is another browser's
            await fake.provider.finish(mine, {**victims, "state": mine.state}, HERE)
        assert fake.asked["/token"] == asked + 1

    asyncio.run(scenario())


def test_an_attempt_that_took_too_long_or_is_another_directorys_is_refused_without_asking() -> None:
    async def scenario() -> None:
        fake = Fake()
        attempt, answer = await fake.go()
        for wrong in (
            replace(attempt, began=fake.now - PATIENCE - 1),
            replace(attempt, began=fake.now + 1),
            replace(attempt, directory="other"),
        ):
            with pytest.raises(Refused, match="took too long, or began elsewhere"):
                await fake.provider.finish(wrong, answer, HERE)
        assert fake.asked["/token"] == 0

    asyncio.run(scenario())


def test_only_people_of_the_company_may_sign_in() -> None:
    fake = Fake(replace(SETTINGS, require={"hd": "example.org"}))
    with pytest.raises(Refused, match=r"only people whose claim hd is example\.org"):
        asyncio.run(fake.sign_in())
    fake.claims = {"hd": "example.org"}
    assert asyncio.run(fake.sign_in())


def test_a_subject_that_no_database_can_store_is_refused() -> None:
    fake = Fake()
    fake.claims.update(sub="a\0b")
    with pytest.raises(Refused, match="sub has control characters"):
        asyncio.run(fake.sign_in())


def test_new_keys_are_read_but_not_for_every_forged_token() -> None:
    async def scenario() -> None:
        fake = Fake()
        await fake.sign_in()
        fake.key = ECKey.generate_key("P-256", {"kid": "two"})
        fake.published = [fake.key]
        with pytest.raises(Unavailable, match="a key that it does not publish"):
            await fake.sign_in()  # the keys were read a moment ago
        fake.now += KEYS_RETRY
        await fake.sign_in()
        assert fake.asked["/keys"] == 2
        fake.header = {"kid": "forged"}
        for _ in range(20):
            with pytest.raises(Unavailable):
                await fake.sign_in()
        assert fake.asked["/keys"] == 2
        fake.header = {}
        fake.now += FRESH
        await fake.sign_in()
        assert fake.asked["/keys"] == 3

    asyncio.run(scenario())


def test_a_provider_that_is_down_is_not_asked_by_everybody_who_wants_to_sign_in() -> None:
    async def scenario() -> None:
        fake = Fake()

        def refuse(request: httpx2.Request) -> httpx2.Response:
            raise httpx2.ConnectError("Connection refused", request=request)

        fake.answers["/.well-known/openid-configuration"] = refuse
        results = await asyncio.gather(*(fake.provider.begin(HERE) for _ in range(50)), return_exceptions=True)
        assert {str(each) for each in results} == {
            f"directory corp: {ISSUER}/.well-known/openid-configuration: Connection refused"
        }
        assert fake.asked.total() == 1
        del fake.answers["/.well-known/openid-configuration"]
        fake.now += RETRY
        await asyncio.gather(*(fake.provider.begin(HERE) for _ in range(50)))
        assert fake.asked.total() == 2

    asyncio.run(scenario())


def never_ends(request: httpx2.Request) -> httpx2.Response:
    async def pieces() -> Any:
        while True:
            yield b" " * 65536

    return httpx2.Response(200, content=pieces())


ANSWERS: dict[str, tuple[Callable[[httpx2.Request], httpx2.Response], str]] = {
    "huge": (never_ends, f"more than {LONGEST} bytes"),
    "packed": (
        lambda request: httpx2.Response(200, headers={"content-encoding": "gzip"}, content=b""),
        "an encoding that was not asked for",
    ),
    "elsewhere": (
        lambda request: httpx2.Response(302, headers={"location": "http://169.254.169.254/"}),
        "sends us elsewhere, where we do not go",
    ),
    "no JSON": (lambda request: httpx2.Response(200, content=b"<html>"), "does not answer with a JSON object"),
    "a list": (lambda request: httpx2.Response(200, json=[]), "does not answer with a JSON object"),
    "deep": (lambda request: httpx2.Response(200, content=b"[" * 100_000), "does not answer with a JSON object"),
    "broken": (lambda request: httpx2.Response(500, content=b"oops"), ""),
}


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/keys", "/token", "/userinfo"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_that_cannot_be_used_is_named(answer: str, path: str) -> None:
    fake = Fake()
    fake.claims = {"groups": None}
    fake.answers[path], why = ANSWERS[answer]
    with pytest.raises(Unavailable) as error:
        asyncio.run(fake.sign_in())
    assert why in str(error.value)
    assert_is_one_line(error.value)


def test_a_slow_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wgpy.gateway.identity.oidc.http.TIMEOUT", 0.01)

    async def pieces() -> Any:
        while True:  # each piece is in time
            await asyncio.sleep(0.002)
            yield b" "

    fake = Fake()
    fake.answers["/token"] = lambda request: httpx2.Response(200, content=pieces())
    with pytest.raises(Unavailable, match=r"no answer in 0\.01 seconds"):
        asyncio.run(fake.sign_in())


def test_a_wrong_secret_is_an_administrators_concern() -> None:
    fake = Fake()
    fake.answers["/token"] = lambda request: httpx2.Response(401, json={"error": "invalid_client"})
    with pytest.raises(Unavailable, match="does not know this client, or the secret is wrong"):
        asyncio.run(fake.sign_in())


def test_keys_that_are_too_short_or_of_no_use_are_left_out() -> None:
    good = OTHER.as_dict(private=False)
    for keys in (
        [{"kty": "oct", "k": "c2VjcmV0"}, good],
        [{"kty": "RSA", "n": "AQAB" * 40, "e": "AQAB"}, good],
        [{"kty": "RSA"}, {"kty": "EC", "crv": "P-256"}, {"kty": "AKP"}, "text", None, good],
        [{"kty": "EC", "crv": "P-256", "x": 1, "y": []}, good],
    ):
        assert len(read_keys({"keys": keys}).keys) == 1
    assert not read_keys({"keys": "none"})
    assert not read_keys({})


async def signed_in(fake: Fake) -> bytes:
    """Sign in, and return what later checks need."""
    found = await fake.sign_in()
    assert found.token
    token: bytes = found.token
    return token


def test_a_check_tells_the_groups_of_now_and_keeps_the_newest_token() -> None:
    async def scenario() -> None:
        fake = Fake()
        token = await signed_in(fake)
        for groups in (["ops"], ["staff", "ops"], []):
            fake.claims = {"groups": groups}
            found = await fake.provider.check("4711", token)
            assert isinstance(found, Confirmed)
            assert found.person.groups == {*groups}
            assert found.token
            assert found.token != token
            token = found.token
        fake.tokens = {"id_token": None}  # some providers send none: then it is userinfo that tells
        found = await fake.provider.check("4711", token)
        assert found
        assert found.person.groups == {"from userinfo"}

    asyncio.run(scenario())


def test_who_is_disabled_is_gone_and_a_provider_with_troubles_says_nothing_about_anybody() -> None:
    async def scenario() -> None:
        fake = Fake()
        token = await signed_in(fake)
        for status, error in (
            (500, "server_error"),
            (401, "invalid_client"),
            (429, "slow_down"),
            (400, "invalid_scope"),
        ):
            answer = httpx2.Response(status, json={"error": error})
            fake.answers["/token"] = lambda request, answer=answer: answer  # type: ignore[misc]
            with pytest.raises(Unavailable):
                await fake.provider.check("4711", token)
        del fake.answers["/token"]
        fake.refresh_tokens = set()
        assert await fake.provider.check("4711", token) is None

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "lie",
    [
        lambda fake: fake.claims.update(sub="0815"),
        lambda fake: fake.claims.update(aud="wiki"),
        lambda fake: fake.claims.update(iss="https://evil.example"),
        lambda fake: (fake.tokens.update(id_token=None), fake.userinfo.update(sub="0815")),
        lambda fake: fake.header.update(alg="HS256"),
    ],
)
def test_a_check_believes_no_lie_and_still_keeps_the_new_token(lie: Lie) -> None:
    async def scenario() -> None:
        fake = Fake()
        token = await signed_in(fake)
        lie(fake)
        with pytest.raises(Unavailable) as error:
            await fake.provider.check("4711", token)
        assert error.value.token
        fake.claims, fake.tokens, fake.header, fake.userinfo["sub"] = {}, {}, {}, "4711"
        assert await fake.provider.check("4711", error.value.token)

    asyncio.run(scenario())


def test_without_a_refresh_token_the_access_token_tells_until_it_expires() -> None:
    async def scenario() -> None:
        fake = Fake()
        fake.tokens = {"refresh_token": None}
        token = await signed_in(fake)
        found = await fake.provider.check("4711", token)
        assert found
        assert found.person.groups == {"from userinfo"}
        assert found.token == token
        fake.answers["/userinfo"] = lambda request: httpx2.Response(401)
        assert await fake.provider.check("4711", token) is None
        fake.now += 600
        with pytest.raises(CannotAsk):
            await fake.provider.check("4711", token)

    asyncio.run(scenario())


def test_a_provider_that_offers_no_means_of_a_check_gives_no_token() -> None:
    fake = Fake()
    fake.tokens, fake.document = {"refresh_token": None}, {"userinfo_endpoint": None}
    assert asyncio.run(fake.sign_in()).token is None


def test_the_provider_signs_people_out_where_it_can() -> None:
    async def scenario() -> None:
        fake = Fake()
        token = await signed_in(fake)
        url = await fake.provider.sign_out_url(token, "https://vpn.example.org/")
        query = dict(parse_qsl(urlsplit(url).query))
        assert url.startswith(f"{ISSUER}/logout?ui=plain&")
        assert query["post_logout_redirect_uri"] == "https://vpn.example.org/"
        assert query["id_token_hint"] == json.loads(token)["id_token"]
        assert "id_token_hint" not in await fake.provider.sign_out_url(None, "https://vpn.example.org/")
        fake.document = {"end_session_endpoint": None}
        fake.now += FRESH
        assert await fake.provider.sign_out_url(token, "https://vpn.example.org/") == ""

    asyncio.run(scenario())


def test_a_probe_tells_what_the_provider_says_about_itself() -> None:
    found = asyncio.run(Fake().provider.probe())
    assert found["issuer"] == ISSUER
    assert found["keys"] == 1
