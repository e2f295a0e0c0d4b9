"""OpenID Connect: the provider signs people in, and tells who they are in a token that it signs.

This is the authorization code flow with PKCE (OpenID Connect Core 1.0, section 3.1; RFC 7636), with the addresses and
keys that the provider publishes (OpenID Connect Discovery 1.0), and with the precautions of RFC 9700.
"""

from wgpy.gateway.identity.oidc.provider import Attempt, Provider

__all__ = ["Attempt", "Provider"]
