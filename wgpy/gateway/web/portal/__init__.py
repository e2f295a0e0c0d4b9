"""The portal: pages on which people see, add, sign in and remove their own devices, and nobody else's."""

from __future__ import annotations

from starlette.routing import BaseRoute, Route

from wgpy.gateway.web.portal import devices, reach
from wgpy.gateway.web.portal.adding import Adding
from wgpy.gateway.web.security import posted


def routes() -> list[BaseRoute]:
    """The pages of the portal."""
    adding = Adding()
    return [
        Route("/", devices.overview),
        Route("/devices/add", adding.show),
        Route("/devices/add", posted(adding.add), methods=["POST"]),
        Route("/devices/{name}/sign-in", posted(devices.sign_in), methods=["POST"]),
        Route("/devices/{name}/remove", posted(devices.remove), methods=["POST"]),
        Route("/link/{name}/{secret}", adding.show_claim),
        Route("/link/{name}/{secret}", posted(adding.claim), methods=["POST"]),
        Route("/reach", reach.show),
    ]
