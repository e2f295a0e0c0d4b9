"""The cable of the interoperation tests."""

from tests.interop.conftest import cable as cable
