"""Signing in and out, and how people change what they sign in with.

    name and password --right--> has a second factor ---> its code or passkey ----------> signed in
                                 has none, and needs one -> sets one up ----------------^
    passkey alone ---------------------------------------------------------------------^
    a directory's page -----right----> comes back -------------------------------------^
    a link from an administrator -> chooses a password, and goes on as after a right one

What a browser has proved so far is in a sealed cookie (`half`), so the gateway keeps nothing for strangers.
"""

from __future__ import annotations

from starlette.routing import BaseRoute, Route

from wgpy.gateway.web.security import posted
from wgpy.gateway.web.sign_in import account, enrol, oidc, pages, second, set_up


def routes() -> list[BaseRoute]:
    """The pages of this part."""
    return [
        Route("/sign-in", pages.show),
        Route("/sign-in", posted(pages.with_password), methods=["POST"]),
        Route("/sign-in/passkey", posted(pages.with_passkey), methods=["POST"]),
        Route("/sign-in/second", second.show),
        Route("/sign-in/second/code", posted(second.with_code), methods=["POST"]),
        Route("/sign-in/second/passkey", posted(second.with_passkey), methods=["POST"]),
        Route("/sign-in/enrol", enrol.show),
        Route("/sign-in/enrol/totp", posted(enrol.totp), methods=["POST"]),
        Route("/sign-in/enrol/passkey", posted(enrol.passkey), methods=["POST"]),
        Route("/sign-in/directory/{name}", oidc.start),
        Route("/sign-in/directory/{name}/callback", oidc.finish),
        Route("/sign-in/directory/{name}/sign-out", oidc.sign_out),
        Route("/sign-out", posted(pages.sign_out), methods=["POST"]),
        Route("/set-up/{secret}", set_up.show),
        Route("/set-up/{secret}", posted(set_up.use), methods=["POST"]),
        Route("/account", account.show),
        Route("/account/password", posted(account.change_password), methods=["POST"]),
        Route("/account/factors", account.show_factors),
        Route("/account/totp", posted(account.add_totp), methods=["POST"]),
        Route("/account/totp/remove", posted(account.remove_totp), methods=["POST"]),
        Route("/account/passkeys", posted(account.add_passkey), methods=["POST"]),
        Route("/account/passkeys/remove", posted(account.remove_passkey), methods=["POST"]),
        Route("/account/sign-out", posted(account.sign_out_everywhere), methods=["POST"]),
    ]
