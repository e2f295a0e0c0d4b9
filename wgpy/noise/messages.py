"""The handshake messages on the wire (paper, 5.4.2 to 5.4.7): little-endian integers, no padding anywhere."""

from __future__ import annotations

from struct import Struct
from typing import Final

from wgpy.constants import COOKIE_NONCE_SIZE, COOKIE_SIZE, MAC_SIZE, TAG_SIZE
from wgpy.keys import KEY_SIZE
from wgpy.noise.tai64n import TIMESTAMP_SIZE

SEALED_KEY_SIZE: Final = KEY_SIZE + TAG_SIZE
SEALED_TIMESTAMP_SIZE: Final = TIMESTAMP_SIZE + TAG_SIZE
SEALED_COOKIE_SIZE: Final = COOKIE_SIZE + TAG_SIZE

# type, sender index, ephemeral, sealed static, sealed timestamp
INITIATION: Final = Struct(f"<II{KEY_SIZE}s{SEALED_KEY_SIZE}s{SEALED_TIMESTAMP_SIZE}s")
# type, sender index, receiver index, ephemeral, sealed nothing
RESPONSE: Final = Struct(f"<III{KEY_SIZE}s{TAG_SIZE}s")
# type, receiver index, nonce, sealed cookie
COOKIE_REPLY: Final = Struct(f"<II{COOKIE_NONCE_SIZE}s{SEALED_COOKIE_SIZE}s")
# Initiations and responses end in two of these: mac1, then mac2.
MACS_SIZE: Final = 2 * MAC_SIZE
