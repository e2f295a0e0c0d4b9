"""A client's file as a QR code, for a phone's camera."""

from __future__ import annotations

import io
import sys

from wgpy.errors import ConfigError


def qr_code(text: str, *, show: bool) -> bytes:
    """Make a PNG of a file's text, and with `show` also print the code. Raises ConfigError if the file is too long."""
    try:
        import segno
    except ImportError:
        raise ConfigError(f"--qr needs segno: {sys.executable} -m pip install segno") from None

    try:
        code = segno.make(text, micro=False)
    except ValueError:  # a QR code holds 2,953 bytes (ISO/IEC 18004, version 40-L)
        size = len(text.encode())
        raise ConfigError(
            f"--qr: a QR code holds 2953 bytes, and the file has {size}: use fewer --route, or no --qr"
        ) from None
    if show:
        code.terminal(compact=True)
    picture = io.BytesIO()
    code.save(picture, kind="png", scale=6)
    return picture.getvalue()
