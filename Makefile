# Two commands do all the set-up: `make up` (dev environment on a Docker engine) and `make test`.
# Plain Pulumi works too: docs/how-to/use-plain-pulumi.md
# Recipes name no variable: they are text from people, and the runner (`ci/__main__.py`) gets them as data. docs/adr/023-one-runner-behind-make.md
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# APP is the folder of an application's Pulumi.yaml. A pull request speaks of stacks; from the shell's environment STACK could
# mean anything.
ifeq ($(origin STACK),command line)
override ENV := $(value STACK)
endif
VARIABLES := APP AT COMPOSE ENV FOR FORCE FROM FULL ID JOURNEY NAME OF ONLY PIN POLICY SHORT SLOT TO WINDOW
# make expands what it was given once more wherever it is named or handed on, and would run $(shell …) in it: from here on it is text.
$(foreach name,$(VARIABLES),$(if $(filter-out undefined,$(origin $(name))),\
  $(eval override $(name) := $$(value $(name)))$(eval export TIERS_ARG_$(name) := $$(value $(name)))))
$(foreach name,$(.VARIABLES),$(if $(filter command line,$(origin $(name))),$(if $(findstring $$,$(name)),,\
  $(eval override $(name) := $$(value $(name))))))

override CACHE := $(HOME)/.cache/tiers
override RUN := .venv/bin/python
override RUNNER := $(RUN) -m ci

# What the lab built comes last on PATH: a machine's own Pulumi is preferred, with its own home.
ifeq ($(filter-out $(CACHE)/bin/pulumi,$(shell command -v pulumi)),)
export PULUMI_HOME ?= $(CACHE)/pulumi
endif
export PATH := $(PATH):$(CACHE)/bin
export PULUMI_SKIP_UPDATE_CHECK ?= true
# As kubectl reads it: a machine's own contexts first, then the lab's.
export KUBECONFIG ?= $(HOME)/.kube/config:$(CACHE)/cluster/kubeconfig

help: ## List the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sort | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

up: venv ## All set-up, then the environment (ENV=dev), then its URL and a real answer
	@$(RUNNER) $@

down: venv ## Remove the environment (ENV=dev); protected data makes it refuse
	@$(RUNNER) $@

shell: venv ## A shell in which plain `pulumi` means what it means here: same state, passphrase and plugins
	@$(RUNNER) $@

images: venv ## Build and push what ENV needs; where images are pinned (or PIN=yes), write their digests into its stack file
	@$(RUNNER) $@

back: venv ## Go back to the release before this one, by one switch (past a contract migration: FORCE=contract)
	@$(RUNNER) $@

promote: venv ## Let the release that waits go live (environment.release.promote: manual)
	@$(RUNNER) $@

status: venv ## Who is live, what each slot holds, what is ready, the last switches
	@$(RUNNER) $@

reseal: venv ## After a passphrase is lost, and the stack file has its secrets anew: the state forgets those it can't decrypt
	@$(RUNNER) $@

trace: venv ## One request through all tiers: every line about ID=…, of both slots, in the order of time
	@$(RUNNER) $@

preview-comment: venv ## What a change would do, as a comment for its pull request (STACK=dev); posted where one is named
	@$(RUNNER) $@

heal: venv ## After a killed update: look what is there, and put the stack right (where its state is lost: FORCE=state)
	@$(RUNNER) $@

dashboard: venv ## The Grafana dashboard of ENV as JSON, to import where no cluster's Grafana finds it (environment.monitoring)
	@$(RUNNER) $@

new: venv ## Start an application of your own: NAME=shop, in apps/NAME or AT; it comes up as it is
	@$(RUNNER) $@

import: venv ## Describe what a Compose file runs: COMPOSE=path/docker-compose.yml, in apps/NAME; says what it could not carry
	@$(RUNNER) $@

# ---- what pipelines call (docs/pipeline.md), and a person may

waiting: venv ## Which release waits to be promoted, as release=…; nothing if none does
	@$(RUNNER) $@

smoke: venv ## Does ENV answer what users ask? The release that waits: SLOT=idle
	@$(RUNNER) $@

journey: venv ## The way of a user through ENV, from a page to the work behind it
	@$(RUNNER) $@

check: venv ## Is all of ENV up, ready, migrated, closed but for its gateway, and answering as app.checks wants?
	@$(RUNNER) $@

backup: venv ## Back up ENV now: the database; with FULL=yes the tiers' volumes, too
	@$(RUNNER) $@

backups: venv ## The backups of ENV there are, and whether they are as they should be
	@$(RUNNER) $@

verify: venv ## Read all backups of ENV, and have the last come back in a scratch database, which is compared
	@$(RUNNER) $@

move: venv ## ENV's single database into the three beside it (ha: true, single: live), compared, and a release that uses these
	@$(RUNNER) $@

reopen: venv ## After make back behind a move, or a move that was killed: ENV's single database takes writes again
	@$(RUNNER) $@

restore: venv ## ENV's data as it was, in a new database, and a release that uses it: TO=latest, an id of `make backups`, or a time (OF=the database of then)
	@$(RUNNER) $@

refresh: venv ## The last proven backup of FROM, anonymised, in a new database of ENV, and a release that uses it
	@$(RUNNER) $@

perf: venv ## Hold ENV to its SLO (environment.slo) at its rate; for another time: WINDOW=30s
	@$(RUNNER) $@

watch: venv ## The same of a release that has just gone live: beyond the SLO, the one before is live again
	@$(RUNNER) $@

preview: venv ## What `make up` would do, and what of it policy/ refuses; left in reports/preview-ENV.txt, too
	@$(RUNNER) $@

drift: venv ## Is ENV what the files say, and has nobody changed it besides? Leaves reports/drift-ENV.txt
	@$(RUNNER) $@

drift-issue: venv ## Say on GitHub what `make drift` found: one issue for each environment
	@$(RUNNER) $@

deployed: venv ## The commit that ENV was last deployed from
	@$(RUNNER) $@

pins-save: venv ## Write the digests of ENV's images into release.json, for another environment to use
	@$(RUNNER) $@

pins-use: venv ## Name the images of release.json in ENV's stack file, if they are what its files describe
	@$(RUNNER) $@

pins-recall: venv ## Name the images of ENV's last update in its stack file, where the files describe them still
	@$(RUNNER) $@

build: venv ## Build the images on this machine's engine; nothing is pushed
	@$(RUNNER) $@

sbom: venv ## What is in the images built for ENV, in reports/*.cdx.json; reports/images.json says which are whose
	@$(RUNNER) $@

built: venv ## The same index as images=…
	@$(RUNNER) $@

scan: venv ## Look for secrets in history and for mistakes in Dockerfiles and manifests; asks nobody outside
	@$(RUNNER) $@

audit: venv ## Look for known holes in dependencies and images; needs the advisories of the world outside
	@$(RUNNER) $@

load:
	@python3 -m lab up load

scan-tools:
	@python3 -m lab up scan

test: venv ## Lint, types, unit tests, documents, workflows, large files, merge commits; needs no engine
	@python3 -m lab up lint
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright
	actionlint
	$(RUN) -m ci.repository
	$(RUN) -m components.reference --check
	$(RUN) -m pytest tests/unit -n auto

fuzz: venv ## Try generated configurations for FOR=10 minutes; each kind of failure is a case in reports/fuzz
	@TIERS_FUZZ=500 $(RUN) -m pytest tests/unit/test_targets.py
	@$(RUN) -m tests.fuzz

e2e: venv ## End to end on the real engine and the real cluster; SHORT=yes leaves out what is marked long
	@python3 -m lab up dev tools $(if $(SHORT),data,archive operator)
	$(RUN) -m pytest tests/e2e -x $(if $(SHORT),-m "not long")

override DATA := $(addprefix tests/e2e/test_,$(addsuffix .py,failover move cache_failover cache_survives external backup restore guard state survival))
e2e-data: venv ## What data survives, the long form: primaries lost in every way, backups, restores, guard rails; prints the times
	@python3 -m lab up dev archive tools
	@failed=0; $(RUN) -m pytest $(DATA) --soak || failed=$$?; $(RUN) -m benchmarks.failover; exit $$failed

matrix: venv ## The examples end to end on both platforms, and what was seen of them in examples/README.md
	@python3 -m lab up dev cluster tools
	@failed=0; $(RUN) -m pytest tests/e2e/test_examples.py || failed=$$?; $(RUN) -m ci.matrix; exit $$failed

# Each is brought up, looked at and taken down again.
screenshots: venv ## The first page of each example by a real browser, seeded, in docs/screenshots
	@$(RUNNER) $@

soak: venv ## The long form: 20 releases under load, an engine killed at 30 points, scans by programs that take long to build
	@python3 -m lab up dev cluster tools scan
	$(RUN) -m pytest tests/e2e/test_load.py tests/e2e/test_killed.py tests/e2e/test_scan.py --soak -x

bench: lab ## The measurements of docs/benchmarks.md, as ratios
	$(RUN) -m benchmarks

lab: venv ## Give this machine what it lacks: Pulumi, plugins, engine, base images
	@$(RUNNER) $@

lab-cluster: ## The same for staging and prod: a Kubernetes cluster of this machine's own, context lab
	@python3 -m lab up data

lab-down: ## Stop what the lab started; the caches stay
	@python3 -m lab down

# Before there are packages, too: it changes nothing.
doctor: ## What is there, what is missing, what will be done
	@$(if $(wildcard .venv/.installed),$(RUN),python3) -m ci $@

docs: venv ## Write the generated documents anew
	$(RUN) -m components.reference
	$(RUN) -m ci.preview demo tests/previews/docker/new-image.json > docs/previews/release.md
	$(RUN) -m ci.preview demo tests/previews/kubernetes/database-deleted.json > docs/previews/dangerous.md

venv: .venv/.installed

.venv/.installed: requirements/requirements-dev.txt
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: Python 3.11 or newer is needed; install it" >&2; exit 1; }
	@test -x .venv/bin/python || python3 -m venv .venv
	@echo "  python packages … takes 40 s"
	@.venv/bin/python -m pip install --quiet --require-hashes -r requirements/requirements-dev.txt
	@touch $@

.PHONY: help load scan-tools test fuzz e2e e2e-data matrix screenshots soak bench lab lab-cluster lab-down doctor docs venv
.PHONY: up down shell images back promote status reseal trace preview-comment heal dashboard new import waiting smoke journey check backup backups verify move reopen restore refresh perf watch preview drift drift-issue deployed pins-save pins-use pins-recall build sbom built scan audit
