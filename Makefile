# Two commands do everything: `make demo` shows what Toprope does, `make test` proves that it works.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.NOTPARALLEL:

CARGO ?= cargo
# What `make demo` builds: `dev` is there in a third of the time that `ci` (release without LTO) takes, and shared with
# the tests; `ci` is for what is to be fast.
PROFILE ?= dev
# Where a profile's binaries are.
TARGET := $(or $(CARGO_TARGET_DIR),target)
BUILT = $(TARGET)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
# Nextest's profile in .config/nextest.toml.
NEXTEST_PROFILE ?= $(if $(CI),ci,default)

# What a build needs beside Rust, as PROGRAM=PACKAGE,…: a C compiler, for SQLite and the cryptography.
BUILD_NEEDS := cc=gcc,libc6-dev
# What tests use where it is there. They start every server themselves, on ports and directories of their own.
TEST_NEEDS := nginx=nginx curl=curl redis-server=redis-server redis-cli=redis-tools initdb=postgresql \
	pgbouncer=pgbouncer faketime=faketime wrk=wrk nft=nftables ip=iproute2 mkfs.ext4=e2fsprogs iptables-legacy=iptables openssl=openssl \
	python3=python3 pytest=python3-pytest

# Tests and tools are built in one way. The demo for a newcomer is built without what only tests need; its features are
# the same, so that nothing is built twice when the tests come.
ALL := --workspace --all-targets --locked
export TOPROPE_BINARY = $(abspath $(TARGET))/debug/toprope

.PHONY: help
help: ## Show this list
	@echo "make TARGET:"
	awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: toolchain ## Build, and show five hypotheses refuted by a broken shop and held by a repaired one
	@$(CARGO) build --package toprope-cli --bin toprope --locked --profile $(PROFILE)
	$(BUILT)/toprope demo $(DEMO)

.PHONY: test
test: test-needs lint ## Check and test everything
	@$(CARGO) test --workspace --locked --doc --quiet
	if $(CARGO) nextest --version >/dev/null 2>&1; then
		$(CARGO) nextest run --workspace --locked --profile $(NEXTEST_PROFILE)
		# The tests that proved nothing here, and why.
		grep -hoE 'SKIPPED [^<]*' $(TARGET)/nextest/$(NEXTEST_PROFILE)/junit.xml | sort -u || true
	else
		echo "cargo-nextest is not there: testing with cargo test, one test at a time"
		$(CARGO) test $(ALL) -- --test-threads=1
	fi

.PHONY: lint
lint: toolchain ## Check format, lints, house rules, generated files, dependencies
	@$(CARGO) fmt --all --check
	$(CARGO) build $(ALL)
	$(CARGO) clippy $(ALL) --quiet -- --deny warnings
	$(TARGET)/debug/xtask tidy
	$(TARGET)/debug/xtask generate --check --toprope $(TARGET)/debug/toprope
	if $(CARGO) deny --version >/dev/null 2>&1; then
		$(CARGO) deny check bans licenses sources
	else
		echo "cargo-deny is not there: licences and sources of dependencies are not checked"
	fi

.PHONY: build
build: toolchain ## Build everything that tests use
	@$(CARGO) build $(ALL)

.PHONY: generate
generate: build ## Write what is derived from the code: docs/reference, schema
	@$(TARGET)/debug/xtask generate --toprope $(TARGET)/debug/toprope

.PHONY: bench
bench: toolchain ## Measure Toprope's own speed
	@$(CARGO) xtask bench

.PHONY: prove-undo
prove-undo: build ## Kill whoever holds a fault, 20 times each, and look for what is left; ROUNDS=1000 for more
	@$(TARGET)/debug/xtask prove-undo --toprope $(TARGET)/debug/toprope --rounds $(or $(ROUNDS),20)

.PHONY: dist
dist: toolchain ## Make the static binary and the Debian package, in target/dist
	@$(CARGO) xtask dist

# What a build needs is there, or is installed, or is named.
.PHONY: toolchain
toolchain:
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing: install it from https://rustup.rs or as packages" >&2; exit 1; }
	xtask/packages.sh must $(BUILD_NEEDS)

.PHONY: test-needs
test-needs: toolchain
	@xtask/packages.sh may $(TEST_NEEDS)
	if ! $(CARGO) nextest --version >/dev/null 2>&1; then
		echo "cargo-nextest is missing; installing it with cargo"
		$(CARGO) install --locked cargo-nextest || echo "going on without"
	fi
