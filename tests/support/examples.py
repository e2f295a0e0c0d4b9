"""How many examples Hypothesis tries where a test wants more, or fewer, than usual."""

from __future__ import annotations

from hypothesis import settings


def examples(count: int) -> int:
    """So many; by the profile `brief` a sixth of them, as it has of the usual number (tests/conftest.py)."""
    return count // 6 if settings.get_current_profile_name() == "brief" else count
