# Each target sets up what it needs and no more: a virtual environment in .venv, and on Debian as root the packages of
# the programs it runs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Other interpreters on which the tests that need no root run, when they are there. 3.14t is free-threaded.
OTHERS := 3.11 3.12 3.13 3.14 3.14t 3.15

# `make install` writes below $(DESTDIR)$(PREFIX), and touches no other Python than its own.
PREFIX ?= /usr/local
.PHONY: help test check wheel docs demo gateway-demo labs interop soak endurance bench fuzz types pythons lint clean runtime runtime-gateway ready install uninstall
.DEFAULT_GOAL := help

help:  ## show this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

test: packages-test  ## lint, types, and every test, on every Python found
	@$(MAKE) --no-print-directory -j3 lint docs pythons
	@$(BIN)/python -m tests.support.endings $(BIN)/python -m tests.support.suite $(OTHERS)

check: lint  ## for every edit, in two minutes: lint, types, and the tests that need no root
	@echo "==> the tests that need no root"
	@$(BIN)/python -m pytest -q -n auto -m "not root and not fuzzer and not peer" --hypothesis-profile=brief \
		--ignore=tests/support --ignore=tests/test_install.py

wheel: ready  ## make the release files in dist/, and try the wheel in a clean environment on every Python found
	@$(BIN)/python -m tests.support.wheel $(OTHERS)

demo: runtime packages-demo  ## two daemons in two namespaces: handshake, ping, iperf3, status, clean exit
	@$(BIN)/python examples/demo.py

interop: ready packages-test  ## run the tests against other WireGuards, and write the table docs/interop.md
	@$(BIN)/python -m tests.support.endings $(BIN)/python -m tests.interop --write

soak: ready  ## hours on simulated bad networks, for MINUTES=10; a seed that fails can be run again
	@$(BIN)/python -m tests.simulation --minutes $(or $(MINUTES),10)

gateway-demo: runtime-gateway packages-labs  ## a gateway, three people in two groups and two servers in namespaces: who reaches what, and how it ends
	@$(BIN)/python -m wgpy gateway demo

labs: runtime-gateway packages-labs  ## all labs, each a VPN in namespaces with real traffic, and a table of results; only one: make lab-transit
	@$(BIN)/python -m wgpy lab all

lab-%: runtime-gateway packages-labs
	@$(BIN)/python -m wgpy lab $*

endurance: ready packages-demo  ## TCP through two daemons for MINUTES=15 with new keys every 2 s; memory and open files must not grow
	@$(BIN)/python -m tests.endurance --minutes $(or $(MINUTES),15)

bench: ready packages-bench  ## measure wgpy beside others, in half an hour: docs/performance.md; BENCH="--quick" for 5 minutes, "-h" for more
	@benchmarks/install.sh
	@$(BIN)/python -m benchmarks $(BENCH)

fuzz: ready  ## coverage-guided fuzzing: SECONDS=60 for each target, TARGET="datagrams uapi" for some
	@$(BIN)/python -m tests.fuzz $(TARGET) --seconds $(or $(SECONDS),60)

docs:  ## make the documentation site in site/; a broken link is an error
	@tests/support/venv.sh $(PYTHON) .venv-docs requirements.txt requirements-docs.txt
	@echo "==> the documentation, as a site"
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet
	@echo "site/index.html"

types:  ## pyright (needs Node): every public name of the library must have a known type
	@tests/support/venv.sh $(PYTHON) .venv-types requirements.txt requirements-types.txt
	@echo "==> pyright --verifytypes wgpy"
	@PATH="$(CURDIR)/.venv-types/bin:$$PATH" .venv-types/bin/pyright --ignoreexternal --verifytypes wgpy

pythons:
	@nice $(PYTHON) -m tests.support.pythons $(OTHERS)

lint: ready  ## ruff and mypy
	@echo "==> ruff and mypy"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary

install:  ## install or upgrade wgpy with its units, manuals and completion: PREFIX=/usr/local, DESTDIR
	@packaging/install.sh install $(DESTDIR)$(PREFIX) $(PREFIX) $(PYTHON)

uninstall:  ## remove what install installed, and nothing else
	@packaging/install.sh uninstall $(DESTDIR)$(PREFIX) $(PREFIX) $(PYTHON)

clean:  ## remove what the other targets made here
	rm -rf .venv* site .mypy_cache .ruff_cache .pytest_cache .hypothesis .fuzz dist build
	find . -name __pycache__ -prune -exec rm -rf {} +

runtime:
	@tests/support/venv.sh $(PYTHON) $(VENV) requirements.txt

runtime-gateway:
	@tests/support/venv.sh $(PYTHON) $(VENV) requirements.txt requirements-gateway.txt

ready:  ## make only the virtual environment .venv, with what the tests use; packages-test installs their programs
	@tests/support/venv.sh $(PYTHON) $(VENV) requirements.txt requirements-gateway.txt requirements-dev.txt requirements-fuzz.txt

packages-%:
	@tests/support/packages.sh $*
