# Two commands do all the set-up: `make up` (dev environment on a Docker engine) and `make test`.
# Plain Pulumi works too: see "Without make" in the README.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# The application: the folder of its Pulumi.yaml. What is asked for happens there.
APP ?= .
ENV ?= dev
# A pull request speaks of stacks; from the shell's environment the word could mean anything.
ifeq ($(origin STACK),command line)
ENV := $(STACK)
endif
JOURNEY ?= $(if $(filter .,$(APP)),examples/board/)journey.js
AUDIT := --quiet --exit-code 1 --ignore-unfixed --severity HIGH,CRITICAL --scanners vuln
CACHE := $(HOME)/.cache/tiers
STATE := $(HOME)/.local/state/tiers
RUN := PYTHONPATH="$(CURDIR)" "$(CURDIR)/.venv/bin/python"

# What the lab built comes last on PATH: a machine's own Pulumi is preferred, with its own home and backend.
ifeq ($(filter-out $(CACHE)/bin/pulumi,$(shell command -v pulumi)),)
export PULUMI_HOME ?= $(CACHE)/pulumi
endif
export PATH := $(PATH):$(CACHE)/bin
# Where state is kept and who encrypts secrets are Pulumi's own settings: `backend:` of Pulumi.yaml and `secretsprovider:` of a
# stack file (docs/secrets-and-state.md). Without them it is a file and a passphrase.
ifeq ($(shell grep -s '^backend:' $(APP)/Pulumi.yaml),)
export PULUMI_BACKEND_URL ?= file://$(STATE)
endif
export PULUMI_SKIP_UPDATE_CHECK ?= true
# As kubectl reads it: a machine's own contexts first, then the lab's.
export KUBECONFIG ?= $(HOME)/.kube/config:$(CACHE)/cluster/kubeconfig
# What the environment needs of this machine: an engine, the lab's cluster, or just the provider of somebody else's.
STACK_FILE := $(APP)/Pulumi.$(ENV).yaml
# An environment of a pull request is one more like staging, with a stack file that is written when it is needed.
PULL_REQUEST := $(filter pr-%,$(ENV))
LIKE := $(if $(PULL_REQUEST),$(APP)/Pulumi.staging.yaml,$(STACK_FILE))
KEEPER := $(or $(shell sed -n "s/^secretsprovider: *//p" $(LIKE) 2>/dev/null | tr -d "\"'"),default)
# What an environment needs of this machine besides: a database of several instances its operator, what is watched who watches.
NEEDS := $(if $(shell grep -s 'platform: kubernetes' $(LIKE)),$(if $(shell grep -sE 'context: lab($$| )' $(LIKE)),cluster$(if $(shell grep -sE '\<ha: true' $(LIKE)),$(if $(shell grep -s 's3:' $(LIKE)), archive, data)),provider),dev)
NEEDS += $(if $(shell grep -sE '^ +monitoring:( +true|.*\{|$$)' $(LIKE)),$(if $(filter cluster,$(NEEDS)),operator,$(if $(filter dev,$(NEEDS)),monitoring)))
# Only dev's passphrase is known: its secrets protect a sample on one machine (docs/adr/004-dev-secrets.md).
ifeq ($(ENV),dev)
export PULUMI_CONFIG_PASSPHRASE ?= dev
endif

# What policy/ demands is held to in every update but the way back: that is for emergencies, to what was held to it before.
POLICY ?= $(CURDIR)/policy
HELD_TO := $(if $(POLICY),--policy-pack "$(POLICY)")
UP := pulumi up --stack $(ENV) --yes --non-interactive
SELECT := pulumi stack select --create $(ENV) --secrets-provider "$(KEEPER)" >/dev/null
HERE := cd "$(APP)";
LOCK := $(STATE)/$(ENV)$(subst /,-,$(APP:.=)).lock

# One at a time on a machine and stack: the second says so at once instead of failing half-way.
define alone
mkdir -p "$(STATE)"; exec 9>"$(LOCK)"; flock -n 9 || { echo "make: another make is at work on stack $(ENV) here; wait for it, then run this again" >&2; exit 1; }; $(HERE)
endef

.PHONY: help up down back promote status preview-comment heal shell soak images stack-file test e2e matrix screenshots bench lab lab-cluster lab-down doctor docs venv
.PHONY: waiting smoke check journey perf watch preview drift drift-issue deployed pins-save pins-use pins-recall build sbom built scan audit load scan-tools

help: ## List the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

up: stack-file lab venv ## All set-up, then the environment (ENV=dev), then its URL and a real answer
	@$(alone) \
	$(SELECT); \
	$(RUN) -m ci.heal $(ENV); \
	$(if $(filter dev,$(NEEDS)),,$(RUN) -m ci.images $(ENV) --unless-pinned;) \
	TIERS_FORCE=$(FORCE) $(UP) $(HELD_TO) $(if $(filter dev,$(ENV)),--skip-preview); \
	url=$$(pulumi stack output url); \
	echo; curl -ksS --retry 3 --retry-connrefused -w "%{stderr}$$url answers %{http_code}, %{size_download} bytes\n" "$$url/" > /dev/null; \
	echo; echo "  open it    $$url"; \
	for key in release go_back; do printf '  %-9s  %s\n' $$key "$$(pulumi stack output $$key)"; done; \
	echo '  logs       pulumi stack output logs, in `make shell`'

images: stack-file lab venv ## Build and push what ENV needs; where images are pinned (or PIN=yes), write their digests into its stack file
	@$(alone) $(RUN) -m ci.images $(ENV) $(if $(PIN),--pin)

down: $(if $(PULL_REQUEST),stack-file) ## Remove the environment (ENV=dev); protected data makes it refuse
	@$(alone) \
	pulumi stack select $(ENV); $(RUN) -m ci.heal $(ENV); pulumi destroy --refresh --yes --non-interactive $(if $(PULL_REQUEST),--remove) || { \
	echo "make: nothing was removed if data is protected here; to remove it too, set environment.protect_data: false, make up, make down" >&2; exit 1; }

shell: lab venv ## A shell in which plain `pulumi` means what it means here: same state, passphrase and plugins
	@$(HERE) pulumi stack select $(ENV) 2>/dev/null || true; exec $${SHELL:-bash}

back: ## Go back to the release before this one, by one switch (past a contract migration: FORCE=contract)
	@$(alone) $(RUN) -m ci.heal $(ENV); \
	TIERS_RELEASE=previous TIERS_FORCE=$(FORCE) $(UP) --skip-preview

promote: ## Let the release that waits go live (environment.release.promote: manual)
	@$(alone) $(RUN) -m ci.heal $(ENV); \
	TIERS_RELEASE=promote TIERS_FORCE=$(FORCE) $(UP) $(HELD_TO) --skip-preview

status: ## Who is live, what each slot holds, what is ready, the last switches
	@$(HERE) $(RUN) -m ci.status $(ENV)

.PHONY: reseal
reseal: ## After a passphrase is lost, and the stack file has its secrets anew: the state forgets those it can't decrypt
	@$(alone) $(RUN) -m ci.reseal $(ENV)

.PHONY: trace
trace: venv ## One request through all tiers: every line about ID=…, of both slots, in the order of time
	@$(HERE) $(RUN) -m ci.trace $(ENV) "$(ID)"

preview-comment: stack-file lab venv ## What a change would do, as a comment for its pull request (STACK=dev); posted where one is named
	@$(HERE) $(RUN) -m ci.preview $(ENV)

heal: ## After a killed update: look what is there, and put the stack right (where its state is lost: FORCE=state)
	@$(alone) TIERS_FORCE=$(FORCE) $(RUN) -m ci.heal $(ENV)

.PHONY: dashboard
dashboard: ## The Grafana dashboard of ENV as JSON, to import where no cluster's Grafana finds it (environment.monitoring)
	@$(HERE) $(RUN) -m ci.dashboard $(ENV)

.PHONY: new import backup backups verify
new: lab venv ## Start an application of your own: NAME=shop, in apps/NAME or AT; it comes up as it is
	@$(RUN) -m ci.new "$(NAME)" $(if $(AT),"$(AT)")

import: lab venv ## Describe what a Compose file runs: COMPOSE=path/docker-compose.yml, in apps/NAME; says what it could not carry
	@python3 -m lab up compose
	@$(RUN) -m ci.compose "$(COMPOSE)" $(if $(NAME),"$(NAME)")

# ---- what pipelines call (docs/pipeline.md), and a person may

waiting: ## Which release waits to be promoted, as release=…; nothing if none does
	@$(HERE) pulumi stack output waiting --stack $(ENV) 2>/dev/null | sed -n 's/^\([^ ]*\) waits on .*/release=\1/p' || true

smoke: venv load ## Does ENV answer what users ask? The release that waits: SLOT=idle
	@$(HERE) $(RUN) -m ci.slo smoke $(ENV) --slot "$(SLOT)"

journey: load ## The way of a user through ENV, from a page to the work behind it
	@$(HERE) URL="$$(pulumi stack output url --stack $(ENV))" k6 run --quiet --no-usage-report --address "" $(JOURNEY)

check: venv ## Is all of ENV up, ready, migrated, closed but for its gateway, and answering as app.checks wants?
	@$(HERE) $(RUN) -m ci.check $(ENV)

# Whatever else is at work on ENV: a backup changes nothing there.
backup: venv ## Back up ENV now: the database; with FULL=yes the tiers' volumes, too
	@$(HERE) $(RUN) -m ci.backup $(ENV) $(if $(FULL),full,backup)

backups: venv ## The backups of ENV there are, and whether they are as they should be
	@$(HERE) $(RUN) -m ci.backup $(ENV) list

verify: venv ## Read all backups of ENV, and have the last come back in a scratch database, which is compared
	@$(HERE) $(RUN) -m ci.backup $(ENV) verify

# A release that does not come to be leaves the single one as it was, too.
.PHONY: move reopen
move: stack-file lab venv ## ENV's single database into the three beside it (ha: true, single: live), compared, and a release that uses these
	@$(alone) $(RUN) -m ci.move $(ENV)
	@$(MAKE) --no-print-directory up || { $(alone) $(RUN) -m ci.move $(ENV) --reopen; exit 1; }

reopen: venv ## After make back behind a move, or a move that was killed: ENV's single database takes writes again
	@$(alone) $(RUN) -m ci.move $(ENV) --reopen

# Never over what is there: a new database beside it, and a release that uses it.
.PHONY: restore refresh
restore: stack-file lab venv ## ENV's data as it was, in a new database, and a release that uses it: TO=latest, an id of `make backups`, or a time (OF=the database of then)
	@$(alone) $(RUN) -m ci.restore $(ENV) "$(TO)" "$(OF)"
	@$(MAKE) --no-print-directory up

refresh: stack-file lab venv ## The last proven backup of FROM, anonymised, in a new database of ENV, and a release that uses it
	@$(alone) $(RUN) -m ci.restore $(ENV) --from "$(FROM)"
	@$(MAKE) --no-print-directory up

perf: venv load ## Hold ENV to its SLO (environment.slo) at its rate; for another time: WINDOW=30s
	@$(HERE) $(RUN) -m ci.slo perf $(ENV) --window "$(WINDOW)"

watch: venv load ## The same of a release that has just gone live: beyond the SLO, the one before is live again
	@$(HERE) $(RUN) -m ci.slo watch $(ENV) --window "$(WINDOW)"

preview: stack-file lab venv ## What `make up` would do, and what of it policy/ refuses; left in reports/preview-ENV.txt, too
	@$(HERE) $(SELECT); mkdir -p reports; TIERS_FORCE=$(FORCE) pulumi preview --stack $(ENV) --diff --non-interactive $(HELD_TO) 2>&1 | tee reports/preview-$(ENV).txt

drift: stack-file lab venv ## Is ENV what the files say, and has nobody changed it besides? Leaves reports/drift-ENV.txt
	@$(HERE) mkdir -p reports; $(RUN) -m ci.drift $(ENV) 2>&1 | tee reports/drift-$(ENV).txt

drift-issue: ## Say on GitHub what `make drift` found: one issue for each environment
	@$(HERE) title="drift: $(ENV) is not what its files say"; \
	{ echo "Found by \`make drift ENV=$(ENV)\`; its end:"; echo '```'; tail --bytes 20000 reports/drift-$(ENV).txt; echo '```'; } > reports/issue.md; \
	number=$$(gh issue list --state open --search "in:title \"$$title\"" --json number --jq '.[0].number'); \
	if [ -n "$$number" ]; then gh issue comment "$$number" --body-file reports/issue.md; \
	else gh issue create --title "$$title" --body-file reports/issue.md; fi

deployed: ## The commit that ENV was last deployed from
	@$(HERE) pulumi stack history --stack $(ENV) --json --page-size 1 | jq --raw-output '.[0].environment["git.head"]'

pins-save: venv ## Write the digests of ENV's images into release.json, for another environment to use
	@$(HERE) $(RUN) -m ci.pins save $(ENV)

pins-use: venv ## Name the images of release.json in ENV's stack file, if they are what its files describe
	@$(HERE) $(RUN) -m ci.pins use $(ENV)

pins-recall: venv ## Name the images of ENV's last update in its stack file, where the files describe them still
	@$(HERE) $(RUN) -m ci.pins recall $(ENV)

build: venv ## Build the images on this machine's engine; nothing is pushed
	@$(HERE) $(RUN) -m ci.images $(ENV) --build

sbom: venv scan-tools ## What is in the images built for ENV, in reports/*.cdx.json; reports/images.json says which are whose
	@$(HERE) $(RUN) -m ci.sbom $(ENV)

built: ## The same index as images=…
	@$(HERE) echo "images=$$(cat reports/images.json)"

scan: venv scan-tools ## Look for secrets in history and for mistakes in Dockerfiles and manifests; asks nobody outside
	gitleaks git --no-banner --redact .
	trivy config --quiet --exit-code 1 --severity HIGH,CRITICAL --skip-check-update examples
	$(RUN) -m pytest --noconftest tests/e2e/test_yardsticks.py -k 'kube_score or no_reason'

# The lab's own modules are pinned to what registries serve, and nothing of them is deployed.
audit: venv scan-tools ## Look for known holes in dependencies and images; needs the advisories of the world outside
	trivy filesystem $(AUDIT) --skip-dirs lab --skip-dirs .venv .
	$(HERE) $(RUN) -m ci.images $(ENV) --build | sed -n 's/^ *\(.*\): built$$/\1/p' | xargs --max-args 1 trivy image $(AUDIT)

load:
	@python3 -m lab up load

scan-tools:
	@python3 -m lab up scan

test: venv ## Lint, types, unit tests, documents, workflows; needs no engine
	@python3 -m lab up lint
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright
	actionlint
	$(RUN) -m components.reference --check
	$(RUN) -m pytest tests/unit -n auto

e2e: venv ## End to end on the real engine and the real cluster; SHORT=yes leaves out what is marked long
	@python3 -m lab up dev tools $(if $(SHORT),data,archive operator)
	$(RUN) -m pytest tests/e2e -x $(if $(SHORT),-m "not long")

.PHONY: e2e-data
DATA := $(addprefix tests/e2e/test_,$(addsuffix .py,failover move cache_failover cache_survives external backup restore guard state survival))
e2e-data: venv ## What data survives, the long form: primaries lost in every way, backups, restores, guard rails; prints the times
	@python3 -m lab up dev archive tools
	@failed=0; $(RUN) -m pytest $(DATA) --soak || failed=$$?; $(RUN) -m benchmarks.failover; exit $$failed

matrix: venv ## The examples end to end on both platforms, and what was seen of them in examples/README.md
	@python3 -m lab up dev cluster tools
	@failed=0; $(RUN) -m pytest tests/e2e/test_examples.py || failed=$$?; $(RUN) -m ci.matrix; exit $$failed

# Each is brought up, looked at and taken down again.
screenshots: venv ## The first page of each example by a real browser, seeded, in docs/screenshots
	docker build --quiet --tag tiers-browser tests/browser
	@mkdir -p docs/screenshots; for name in $(or $(ONLY),about_me pmanager django_site palmonas); do \
	$(MAKE) --no-print-directory up APP=examples/$$name; \
	url=$$(cd examples/$$name; PULUMI_CONFIG_PASSPHRASE=dev pulumi stack output url --stack dev); \
	docker run --rm --network host tiers-browser "$$url" > docs/screenshots/$$name.png; \
	$(MAKE) --no-print-directory down APP=examples/$$name; done

soak: venv ## The long form: 20 releases under load, an engine killed at 30 points, scans by programs that take long to build
	@python3 -m lab up dev cluster tools scan
	$(RUN) -m pytest tests/e2e/test_load.py tests/e2e/test_killed.py tests/e2e/test_scan.py --soak -x

bench: lab venv ## The measurements of the README, as ratios
	$(RUN) -m benchmarks

lab: ## Give this machine what it lacks: Pulumi, plugins, engine, base images
	@python3 -m lab up $(NEEDS)

lab-cluster: ## The same for staging and prod: a Kubernetes cluster of this machine's own, context lab
	@python3 -m lab up data

lab-down: ## Stop what the lab started; the caches stay
	@python3 -m lab down

doctor: ## What is there, what is missing, what will be done
	@python3 -m lab doctor $(NEEDS)

docs: venv ## Write the generated documents anew
	$(RUN) -m components.reference
	$(RUN) -m ci.preview demo tests/previews/docker/new-image.json > docs/previews/release.md
	$(RUN) -m ci.preview demo tests/previews/kubernetes/database-deleted.json > docs/previews/dangerous.md

stack-file: $(if $(PULL_REQUEST),lab venv)
	@test -f "$(APP)/Pulumi.yaml" || { echo "make: there is no $(APP)/Pulumi.yaml; APP is the folder of an application" >&2; exit 1; }; \
	$(if $(PULL_REQUEST),( $(HERE) $(RUN) -m ci.ephemeral $(ENV) );) \
	test -f $(STACK_FILE) || { echo "make: there is no $(STACK_FILE); ENV is the name of a stack file" >&2; exit 1; }

venv: .venv/.installed

.venv/.installed: requirements-dev.txt
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: Python 3.11 or newer is needed; install it" >&2; exit 1; }
	@test -x .venv/bin/python || python3 -m venv .venv
	@echo "  python packages … takes 40 s"
	@.venv/bin/python -m pip install --quiet --require-hashes -r requirements-dev.txt
	@touch $@
