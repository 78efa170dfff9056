# Two commands do all the set-up: `make up` (dev environment on a Docker engine) and `make test`.
# Plain Pulumi works too: docs/how-to/use-plain-pulumi.md
# Recipes contain no value that a user sets, because a shell could run a part of it. The runner (`ci/__main__.py`) gets the values as
# environment variables: docs/adr/023-one-runner-behind-make.md
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# APP is the folder with an application's Pulumi.yaml. STACK is an alias of ENV, for pull requests. It has an effect only on the command
# line, because a variable STACK of the shell could mean something else.
ifeq ($(origin STACK),command line)
override ENV := $(value STACK)
endif
VARIABLES := APP AT CMD COMPOSE COUNT ENV FOLLOW FOR FORCE FROM FULL ID JOB JOURNEY NAME OF ONLY PIN POLICY SEED SERVICE SHORT SINCE SLOT TO WINDOW
# make expands the value of a variable again at each use or export, and would run a $(shell …) in the value. The next lines turn the
# values into plain text.
$(foreach name,$(VARIABLES),$(if $(filter-out undefined,$(origin $(name))),\
  $(eval override $(name) := $$(value $(name)))$(eval export TIERS_ARG_$(name) := $$(value $(name)))))
$(foreach name,$(.VARIABLES),$(if $(filter command line,$(origin $(name))),$(if $(findstring $$,$(name)),,\
  $(eval override $(name) := $$(value $(name))))))

override CACHE := $(HOME)/.cache/tiers
override RUN := .venv/bin/python
override RUNNER := $(RUN) -m ci

# The lab's programs come last on PATH, so a Pulumi that the machine already has is used, with its own PULUMI_HOME.
ifeq ($(filter-out $(CACHE)/bin/pulumi,$(shell command -v pulumi)),)
export PULUMI_HOME ?= $(CACHE)/pulumi
endif
export PATH := $(PATH):$(CACHE)/bin
export PULUMI_SKIP_UPDATE_CHECK ?= true
# kubectl reads a list of kubeconfig files: first the user's file, then the lab's.
export KUBECONFIG ?= $(HOME)/.kube/config:$(CACHE)/cluster/kubeconfig

help: ## List the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sort | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

up: venv ## Install what is missing, deploy the environment (ENV=dev), and print its URL and a real response
	@$(RUNNER) $@

down: venv ## Remove the environment (ENV=dev); refused while its data is protected
	@$(RUNNER) $@

shell: venv ## Open a shell in which plain `pulumi` uses the same state, passphrase and plugins as make
	@$(RUNNER) $@

secrets: venv ## Create the stack ENV, generate its missing passwords, and ask for its other missing secrets
	@$(RUNNER) $@

images: venv ## Build and push the images of ENV; if images are pinned (or PIN=yes), write their digests to its stack file
	@$(RUNNER) $@

back: venv ## Go back to the previous release, by one switch (past a contract migration: FORCE=contract)
	@$(RUNNER) $@

promote: venv ## Switch to the release that waits for promotion (environment.release.promote: manual)
	@$(RUNNER) $@

status: venv ## Show the live slot, the release of each slot, readiness, the last switches, and the last commands of people
	@$(RUNNER) $@

reseal: venv ## Remove the secrets from the state after a lost passphrase; first set all secrets in the stack file again
	@$(RUNNER) $@

logs: venv ## Print the logs of all services in order of time, and follow them: SERVICE=api, SLOT=live, SINCE=10m, FOLLOW=no
	@$(RUNNER) $@

exec: venv ## Run a command in a container of SERVICE: CMD="alembic current"
	@$(RUNNER) $@

run: venv ## Run a command (CMD="…") in a new container of SERVICE, or run a scheduled job now (JOB=…)
	@$(RUNNER) $@

console: venv ## Open the console of SERVICE in its container: a shell, the application's own (`console`), or psql
	@$(RUNNER) $@

trace: venv ## Show every log line of one request (ID=…), from all tiers and both slots, in order of time
	@$(RUNNER) $@

preview-comment: venv ## Write a comment with what an update would change (STACK=dev); post it in the pipeline of a pull request, or else print it
	@$(RUNNER) $@

heal: venv ## Repair the stack after a killed update, and restore missing and stopped resources (lost state: FORCE=state)
	@$(RUNNER) $@

dashboard: venv ## Print the Grafana dashboard of ENV as JSON, for import (environment.monitoring)
	@$(RUNNER) $@

new: venv ## Start a new application that can be deployed at once: NAME=shop, in apps/NAME or in AT
	@$(RUNNER) $@

import: venv ## Convert a Compose file: COMPOSE=path/docker-compose.yml, into apps/NAME; list the parts that were not converted
	@$(RUNNER) $@

# ---- targets for pipelines (docs/pipeline.md) and for people

waiting: venv ## Print the release that waits for promotion as release=…, or nothing
	@$(RUNNER) $@

smoke: venv ## Check that ENV answers the requests of app.visits; for the release that waits for promotion: SLOT=idle
	@$(RUNNER) $@

journey: venv ## Run the k6 script journey.js of the application, which uses ENV as a user does (another script: JOURNEY=path)
	@$(RUNNER) $@

check: venv ## Check that ENV is up, ready, migrated, reachable only by its gateway, and answers as app.checks expects
	@$(RUNNER) $@

backup: venv ## Back up the database of ENV now; FULL=yes includes the tiers' volumes and each store; SERVICE=mysql: a store only
	@$(RUNNER) $@

backups: venv ## List the backups of ENV, and check their state; SERVICE=mysql: those of a store
	@$(RUNNER) $@

verify: venv ## Read all backups of ENV, restore the last one into a scratch database, and compare this database with the backup; SERVICE=mysql: read those of a store
	@$(RUNNER) $@

move: venv ## Copy ENV's single database into its database cluster (ha: true, single: live), compare both, and release the tiers with the cluster
	@$(RUNNER) $@

reopen: venv ## Make ENV's single database accept writes again, after `make back` past a move, or after a killed move
	@$(RUNNER) $@

restore: venv ## Restore ENV's data into a new database, and release the tiers with it: TO=latest, TO=id of `make backups`, or TO=time (OF=database live then); SERVICE=mysql: replace the files of a store
	@$(RUNNER) $@

refresh: venv ## Restore the last verified backup of environment FROM, anonymised, into a new database of ENV, and release the tiers with it
	@$(RUNNER) $@

perf: venv ## Test ENV against its SLO (environment.slo) at its rate; for another duration: WINDOW=30s
	@$(RUNNER) $@

watch: venv ## Test a new release of ENV against the SLO; if a limit is exceeded, go back to the previous release
	@$(RUNNER) $@

preview: venv ## Show the changes that `make up` would make, and which of them policy/ refuses; also in reports/preview-ENV.txt
	@$(RUNNER) $@

drift: venv ## Compare ENV with its files and its state; also in reports/drift-ENV.txt
	@$(RUNNER) $@

drift-issue: venv ## Report the result of `make drift` on GitHub, in one issue per environment
	@$(RUNNER) $@

deployed: venv ## Print the commit that ENV was last deployed from
	@$(RUNNER) $@

pins-save: venv ## Write the digests of ENV's images to release.json, for another environment
	@$(RUNNER) $@

pins-use: venv ## Write the digests of release.json to ENV's stack file; refused if ENV's files describe other images
	@$(RUNNER) $@

pins-recall: venv ## Write the digests of ENV's last update to its stack file, except for images that have changed since
	@$(RUNNER) $@

build: venv ## Build the images on this machine's engine, without pushing them
	@$(RUNNER) $@

sbom: venv ## List the parts of the images built for ENV in reports/*.cdx.json, with an index in reports/images.json
	@$(RUNNER) $@

built: venv ## Print the index of `make sbom` as images=…
	@$(RUNNER) $@

scan: venv ## Scan the history for secrets, and Dockerfiles and manifests for mistakes; works offline
	@$(RUNNER) $@

audit: venv ## Scan dependencies and images for known vulnerabilities; downloads advisories
	@$(RUNNER) $@

load:
	@python3 -m lab up load

scan-tools:
	@python3 -m lab up scan

test: venv ## Run linters, type checks, unit tests, and checks of documents, workflows, large files and merge commits; needs no engine
	@python3 -m lab up lint
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright
	actionlint
	$(RUN) -m ci.repository
	$(RUN) -m components.reference --check
	$(RUN) -m pytest tests/unit -n auto

prose: venv ## List texts for a reader to check, and draw a sample (SEED=7, COUNT=20 of each kind); no gate
	@$(RUNNER) $@

fuzz: venv ## Test generated configurations for FOR=10 minutes; each kind of failure becomes a case in reports/fuzz
	@TIERS_FUZZ=500 $(RUN) -m pytest tests/unit/test_targets.py
	@$(RUN) -m tests.fuzz

e2e: venv ## Run the end-to-end tests on the real engine and the real cluster; SHORT=yes skips the tests marked long
	@python3 -m lab up dev tools $(if $(SHORT),data,archive operator)
	$(RUN) -m pytest tests/e2e -x $(if $(SHORT),-m "not long")

override DATA := $(addprefix tests/e2e/test_,$(addsuffix .py,failover move cache_failover cache_survives external backup restore guard state survival))
e2e-data: venv ## Run the long tests of data safety: lost primaries, backups, restores, refused updates; print the measured times
	@python3 -m lab up dev archive tools
	@failed=0; $(RUN) -m pytest $(DATA) --soak || failed=$$?; $(RUN) -m benchmarks.failover; exit $$failed

matrix: venv ## Test the examples end to end on both platforms, and write the results to examples/README.md
	@python3 -m lab up dev cluster tools
	@failed=0; $(RUN) -m pytest tests/e2e/test_examples.py || failed=$$?; $(RUN) -m ci.matrix; exit $$failed

screenshots: venv ## Take a screenshot of each example's first page with a real browser and seed data, in docs/screenshots
	@$(RUNNER) $@

soak: venv ## Run the long tests: 20 releases under load, an engine killed at 30 points, scans whose programs take long to build
	@python3 -m lab up dev cluster tools scan
	$(RUN) -m pytest tests/e2e/test_load.py tests/e2e/test_killed.py tests/e2e/test_scan.py --soak -x

bench: lab ## Measure the ratios of docs/benchmarks.md
	$(RUN) -m benchmarks

lab: venv ## Install what this machine lacks: Pulumi, plugins, engine, base images
	@$(RUNNER) $@

lab-cluster: ## Start a Kubernetes cluster on this machine, for staging and prod (kubectl context lab)
	@python3 -m lab up data

lab-down: ## Stop what the lab started; the caches stay
	@python3 -m lab down

# `make doctor` changes nothing, and also works before the Python packages are installed.
doctor: ## List what this machine has, what it lacks, and what would be installed
	@$(if $(wildcard .venv/.installed),$(RUN),python3) -m ci $@

docs: documents .venv/.docs ## Generate the documents again, and build the site with the API reference in reports/site; a broken link fails
	$(RUN) -m ci.site

documents: venv ## Generate the documents again, without building the site; needs no network
	$(RUN) -m components.reference
	$(RUN) -m ci.site.api
	$(RUN) -m ci.preview demo tests/previews/docker/new-image.json > docs/previews/release.md
	$(RUN) -m ci.preview demo tests/previews/kubernetes/database-deleted.json > docs/previews/dangerous.md

venv: .venv/.installed

.venv/.installed: requirements/requirements-dev.txt
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: Python 3.11 or newer is needed; install it" >&2; exit 1; }
	@test -x .venv/bin/python || python3 -m venv .venv
	@echo "  python packages … takes 40 s"
	@.venv/bin/python -m pip install --quiet --require-hashes -r requirements/requirements-dev.txt
	@touch $@

.venv/.docs: requirements/requirements-docs.txt | venv
	@echo "  packages of the site … takes 20 s"
	@.venv/bin/python -m pip install --quiet --require-hashes -r requirements/requirements-docs.txt
	@touch $@

.PHONY: help load scan-tools test fuzz e2e e2e-data matrix screenshots soak bench lab lab-cluster lab-down doctor docs documents venv
.PHONY: up down shell secrets images back promote status reseal logs exec run console trace preview-comment heal dashboard new import waiting smoke journey check backup backups verify move reopen restore refresh perf watch preview drift drift-issue deployed pins-save pins-use pins-recall build sbom built scan audit prose
