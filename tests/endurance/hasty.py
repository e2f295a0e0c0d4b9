"""`wgpy` as it is, but in a hurry: sessions live for seconds, so that minutes see as many of them as days otherwise."""

from __future__ import annotations

import sys
from typing import Final

import wgpy.constants

REKEY_AFTER_TIME: Final = 2.0  # seconds
# The proportions are the protocol's; REKEY_TIMEOUT leaves a busy machine the time to answer.
IN_A_HURRY: Final = {
    "REKEY_AFTER_TIME": REKEY_AFTER_TIME,
    "REJECT_AFTER_TIME": 6.0,
    "ZERO_KEY_MATERIAL_AFTER": 18.0,
    "REKEY_TIMEOUT": 0.5,
    "KEEPALIVE_TIMEOUT": 1.0,
}

if __name__ == "__main__":
    for name, seconds in IN_A_HURRY.items():
        assert hasattr(wgpy.constants, name)
        setattr(wgpy.constants, name, seconds)
    from wgpy.cli import main  # only now, for modules take the constants over when they are imported

    sys.exit(main())
