"""Protocol limits, under the names the WireGuard paper uses (sections in brackets; times in seconds)."""

from typing import Final

# Messages (5.4): the type is compared together with its three reserved zero bytes.
MESSAGE_INITIATION: Final = 1
MESSAGE_RESPONSE: Final = 2
MESSAGE_COOKIE_REPLY: Final = 3
MESSAGE_TRANSPORT: Final = 4

INITIATION_SIZE: Final = 148
RESPONSE_SIZE: Final = 92
COOKIE_REPLY_SIZE: Final = 64
TRANSPORT_HEADER_SIZE: Final = 16
TAG_SIZE: Final = 16
TRANSPORT_OVERHEAD: Final = TRANSPORT_HEADER_SIZE + TAG_SIZE
PADDING_MULTIPLE: Final = 16  # [5.4.6]

# Key lifetimes (6.1).
REKEY_AFTER_MESSAGES: Final = 1 << 60
REPLAY_WINDOW: Final = 8128  # counters behind the newest that are still accepted: 8192 bits, one word of them spare
REJECT_AFTER_MESSAGES: Final = (1 << 64) - 1 - REPLAY_WINDOW - 1
REKEY_AFTER_TIME: Final = 120.0
REJECT_AFTER_TIME: Final = 180.0
REKEY_TIMEOUT: Final = 5.0
KEEPALIVE_TIMEOUT: Final = 10.0
ZERO_KEY_MATERIAL_AFTER: Final = REJECT_AFTER_TIME * 3  # [6.3]
RETRANSMIT_JITTER: Final = 1 / 3  # [6.1]; the kernel's HZ / 3
MAX_HANDSHAKE_RETRIES: Final = 18  # REKEY_ATTEMPT_TIME 90 s / REKEY_TIMEOUT; counted as the kernel's timers.c does

# Denial of service (5.3, 5.4.7).
COOKIE_SECRET_MAX_AGE: Final = 120.0
COOKIE_SECRET_LATENCY: Final = 5.0  # an initiator stops using a cookie this long before its secret can rotate
COOKIE_SIZE: Final = 16
COOKIE_NONCE_SIZE: Final = 24
MAC_SIZE: Final = 16
INITIATION_INTERVAL: Final = 0.020  # at most 50 initiations a second are consumed from one peer
UNDER_LOAD_STICKINESS: Final = 1.0

# Peers and queues (kernel queueing.h, device.h).
MAX_PEERS: Final = 1 << 20
MAX_WORKERS: Final = 64  # their number lies in the first byte of an index, with bits to spare
MAX_STAGED_PACKETS: Final = 128
DEFAULT_MTU: Final = 1420
MIN_MTU: Final = 68  # bytes; what Linux lets a TUN have, from here (RFC 791) to the longest IP packet
MAX_MTU: Final = 65535
MIN_IPV6_MTU: Final = 1280  # bytes; below, Linux takes IPv6 off an interface (RFC 8200 section 5)
OUTER_OVERHEAD: Final = 80  # bytes: IPv6 and UDP headers, and a transport message's own 32

# One sendmsg with UDP_SEGMENT: UDP_MAX_SEGMENTS of the oldest kernels that know it, and bytes over IPv4.
MAX_SEGMENTS: Final = 64
MAX_DATAGRAM: Final = 65507

TUN_PATH: Final = "/dev/net/tun"

# Outer traffic class of initiations and responses: AF41 (kernel messages.h).
HANDSHAKE_TRAFFIC_CLASS: Final = 0x88
