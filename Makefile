# Each target sets up what it needs: a virtual environment in .venv, and on Debian as root the packages of the tests.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
# Other interpreters on which the tests that need no root run, when they are there.
OTHERS := 3.11 3.12 3.13

.PHONY: help test demo bench lint clean packages others
.DEFAULT_GOAL := help

help:  ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

test: $(READY) packages lint others  ## lint, types, and every test, on every Python found
	@echo "==> tests on $$($(BIN)/python --version)"
	@$(BIN)/python -m pytest -q

demo: $(READY) packages  ## two daemons in two namespaces: handshake, ping, iperf3, status, clean exit
	@$(BIN)/python examples/demo.py

bench: $(READY) packages  ## cost of each stage, and TCP beside wireguard-go
	@$(BIN)/python -m benchmarks

lint: $(READY)  ## ruff and mypy
	@echo "==> ruff and mypy"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary

clean:  ## remove what the other targets made here
	rm -rf .venv* .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
	find . -name __pycache__ -prune -exec rm -rf {} +

packages:
	@tests/support/packages.sh

$(READY): requirements-dev.txt
	@tests/support/venv.sh $(PYTHON) $(VENV)

others: $(READY)
	@tests/support/others.sh $(BIN)/python $(OTHERS)
