# Two commands do all the set-up: `make up` (dev environment on a Docker engine) and `make test`.
# Plain Pulumi works too: see "Without make" in the README.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

ENV ?= dev
# A pull request speaks of stacks; from the shell's environment the word could mean anything.
ifeq ($(origin STACK),command line)
ENV := $(STACK)
endif
CACHE := $(HOME)/.cache/tiers
STATE := $(HOME)/.local/state/tiers
RUN := .venv/bin/python

# What the lab built comes last on PATH: a machine's own Pulumi is preferred, with its own home and backend.
ifeq ($(filter-out $(CACHE)/bin/pulumi,$(shell command -v pulumi)),)
export PULUMI_HOME ?= $(CACHE)/pulumi
endif
export PATH := $(PATH):$(CACHE)/bin
# Where state is kept and who encrypts secrets are Pulumi's own settings: `backend:` of Pulumi.yaml and `secretsprovider:` of a
# stack file (docs/secrets-and-state.md). Without them it is a file and a passphrase.
ifeq ($(shell grep -s '^backend:' Pulumi.yaml),)
export PULUMI_BACKEND_URL ?= file://$(STATE)
endif
export PULUMI_SKIP_UPDATE_CHECK ?= true
# As kubectl reads it: a machine's own contexts first, then the lab's.
export KUBECONFIG ?= $(HOME)/.kube/config:$(CACHE)/cluster/kubeconfig
# What the environment needs of this machine: an engine, the lab's cluster, or just the provider of somebody else's.
STACK_FILE := Pulumi.$(ENV).yaml
KEEPER := $(or $(shell sed -n "s/^secretsprovider: *//p" $(STACK_FILE) 2>/dev/null | tr -d "\"'"),default)
NEEDS := $(if $(shell grep -s 'platform: kubernetes' $(STACK_FILE)),$(if $(shell grep -s 'context: lab$$' $(STACK_FILE)),cluster,provider),dev)
# Only dev's passphrase is known: its secrets protect a sample on one machine (docs/adr/004-dev-secrets.md).
ifeq ($(ENV),dev)
export PULUMI_CONFIG_PASSPHRASE ?= dev
endif

# What policy/ demands is held to in every update but the way back: that is for emergencies, to what was held to it before.
POLICY ?= policy
HELD_TO := $(if $(POLICY),--policy-pack $(POLICY))
UP := pulumi up --stack $(ENV) --yes --non-interactive
SELECT := pulumi stack select --create $(ENV) --secrets-provider "$(KEEPER)" >/dev/null

# One at a time on a machine and stack: the second says so at once instead of failing half-way.
define alone
mkdir -p "$(STATE)"; exec 9>"$(STATE)/$(ENV).lock"; flock -n 9 || { echo "make: another make is at work on stack $(ENV) here; wait for it, then run this again" >&2; exit 1; };
endef

.PHONY: help up policy down back promote status preview-comment heal shell soak images stack-file test e2e bench lab lab-cluster lab-down doctor docs venv

help: ## List the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

up: stack-file lab venv ## All set-up, then the environment (ENV=dev), then its URL and a real answer
	@$(alone) \
	$(SELECT); \
	$(RUN) -m ci.heal $(ENV); \
	$(if $(filter dev,$(NEEDS)),,$(RUN) -m ci.images $(ENV) --unless-pinned;) \
	$(UP) $(HELD_TO) $(if $(filter dev,$(ENV)),--skip-preview); \
	url=$$(pulumi stack output url); \
	echo; curl -ksS --retry 3 --retry-connrefused -o /dev/null -w "$$url answers %{http_code}, %{size_download} bytes\n" "$$url/"; \
	echo; echo "  open it    $$url"; \
	for key in release go_back; do printf '  %-9s  %s\n' $$key "$$(pulumi stack output $$key)"; done; \
	echo '  logs       pulumi stack output logs, in `make shell`'

policy: stack-file lab venv ## A preview: what `make up` would do, and what of it the rules in policy/ refuse
	@$(SELECT); pulumi preview --stack $(ENV) --non-interactive $(HELD_TO)

images: stack-file lab venv ## Build and push what ENV needs; where images are pinned, write their digests into its stack file
	@$(alone) $(RUN) -m ci.images $(ENV)

down: ## Remove the environment (ENV=dev); protected data makes it refuse
	@$(alone) \
	pulumi stack select $(ENV); $(RUN) -m ci.heal $(ENV); pulumi destroy --refresh --yes --non-interactive || { \
	echo "make: nothing was removed if data is protected here; to remove it too, set environment.protect_data: false, make up, make down" >&2; exit 1; }

shell: lab venv ## A shell in which plain `pulumi` means what it means here: same state, passphrase and plugins
	@pulumi stack select $(ENV) 2>/dev/null || true; exec $${SHELL:-bash}

back: ## Go back to the release before this one, by one switch (past a contract migration: FORCE=contract)
	@$(alone) $(RUN) -m ci.heal $(ENV); \
	TIERS_RELEASE=previous TIERS_FORCE=$(FORCE) $(UP) --skip-preview

promote: ## Let the release that waits go live (environment.release.promote: manual)
	@$(alone) $(RUN) -m ci.heal $(ENV); \
	TIERS_RELEASE=promote TIERS_FORCE=$(FORCE) $(UP) $(HELD_TO) --skip-preview

status: ## Who is live, what each slot holds, what is ready, the last switches
	@$(RUN) -m ci.status $(ENV)

preview-comment: stack-file lab venv ## What a change would do, as a comment for its pull request (STACK=dev); posted where one is named
	@$(RUN) -m ci.preview $(ENV)

heal: ## After a killed update: look what is there, and put the stack right
	@$(alone) $(RUN) -m ci.heal $(ENV)

test: venv ## Lint, types, unit tests, documents; needs no engine
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright
	$(RUN) -m components.reference --check
	$(RUN) -m pytest tests/unit -n auto

e2e: venv ## The short end-to-end run on the real engine and the real cluster
	@python3 -m lab up dev cluster tools
	$(RUN) -m pytest tests/e2e -x

soak: venv ## The same under load for long: 20 releases, an engine killed at 30 points
	@python3 -m lab up dev cluster tools
	$(RUN) -m pytest tests/e2e/test_load.py tests/e2e/test_killed.py --soak -x

bench: lab venv ## The measurements of the README, as ratios
	$(RUN) -m benchmarks

lab: ## Give this machine what it lacks: Pulumi, plugins, engine, base images
	@python3 -m lab up $(NEEDS)

lab-cluster: ## The same for staging and prod: a Kubernetes cluster of this machine's own, context lab
	@python3 -m lab up cluster

lab-down: ## Stop what the lab started; the caches stay
	@python3 -m lab down

doctor: ## What is there, what is missing, what will be done
	@python3 -m lab doctor $(NEEDS)

docs: venv ## Write the generated documents anew
	$(RUN) -m components.reference
	$(RUN) -m ci.preview demo tests/previews/docker/new-image.json > docs/previews/release.md
	$(RUN) -m ci.preview demo tests/previews/kubernetes/database-deleted.json > docs/previews/dangerous.md

stack-file:
	@test -f $(STACK_FILE) || { echo "make: there is no $(STACK_FILE); ENV is the name of a stack file" >&2; exit 1; }

venv: .venv/.installed

.venv/.installed: requirements-dev.txt
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: Python 3.11 or newer is needed; install it" >&2; exit 1; }
	@test -x .venv/bin/python || python3 -m venv .venv
	@echo "  python packages … takes 40 s"
	@.venv/bin/python -m pip install --quiet --require-hashes -r requirements-dev.txt
	@touch $@
