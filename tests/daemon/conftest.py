"""The same cable as the interoperation tests'."""

from tests.interop.conftest import cable as cable
