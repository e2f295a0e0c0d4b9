"""pyroute2 without the half of it that wgpy does not use."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from typing import Any


def make_light() -> None:
    """Before an import from pyroute2's modules: have only these loaded, not all that the package itself imports.

    The package imports its databases, ipset, IPVS and more, which takes as long as all else that `wgpy up` does before
    it begins. So the package is put in place without being run. It runs as soon as somebody asks it for one of those
    names, because a program that uses wgpy may use pyroute2, too.
    """
    spec = find_spec("pyroute2")
    if "pyroute2" in sys.modules or spec is None or spec.loader is None:
        return
    package, run = module_from_spec(spec), spec.loader.exec_module

    def attribute(name: str) -> Any:
        try:
            return import_module(f"pyroute2.{name}")
        except ModuleNotFoundError:
            package.__dict__.pop("__getattr__", None)
            run(package)
            return getattr(package, name)

    package.__dict__["__getattr__"] = attribute
    sys.modules["pyroute2"] = package
