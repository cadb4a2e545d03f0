# `make` alone prints this list. Every target does its own set-up; nothing has to be prepared.
SHELL := /bin/sh
STAGE ?= dev
PYTHON := .venv/bin/python

# What is given on the command line is text: neither make expands it (`value`) nor the shell, which
# finds it in its environment. Recipes say "$$NAME", never $(NAME).
override STAGE := $(value STAGE)
override SOURCE := $(value SOURCE)
override OPTIONS := $(value OPTIONS)
override TESTS := $(value TESTS)
override AT := $(value AT)
override TO := $(value TO)
override REMOVE := $(value REMOVE)
override INPLACE := $(value INPLACE)
override BACK := $(value BACK)
override SETTLE := $(value SETTLE)
override ARGS := $(value ARGS)
export STAGE SOURCE OPTIONS TESTS AT TO REMOVE INPLACE BACK SETTLE ARGS
WORDS_OF = $(PYTHON) -m tools.words

.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  with STAGE=dev|staging|production (default dev) for every target on Docker"

.PHONY: setup
setup:
	@tools/setup

# ---------------------------------------------------------------------------- on this machine

.PHONY: demo
demo: ## migrate a made-up database (or SOURCE=my.db, a rehearsal) to an embedded PostgreSQL
	@tools/setup lean
	@tools/system-packages
	@trap : INT; python=$(PYTHON); [ -x $$python ] || python=.venv-demo/bin/python; \
	$$python -m tools.words OPTIONS $$python -m migration_job demo -- $${SOURCE:+"$$SOURCE"} \
	|| { status=$$?; [ $$status = 130 ] || exit $$status; }  # Ctrl-C: it has said so itself

.PHONY: test
test: setup ## run the tests that this machine can run, on PostgreSQL 14 or POSTGRES_MAJOR, but long ones
	@tools/system-packages
	@[ -n "$$TESTS" ] || set -- -m "not long and not life"; \
	$(WORDS_OF) TESTS $(PYTHON) -m pytest -n auto --maxprocesses 4 --dist loadfile \
		--no-loadscope-reorder "$$@"

.PHONY: test-long
test-long: setup ## run the long tests: stages on real containers, and real applications, minutes each
	@tools/system-packages
	@$(PYTHON) -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m long

.PHONY: lint
lint: setup ## check style, types, security rules and the code's shape, and ask for advisories
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@$(PYTHON) -m mypy
	@PYTHONPATH=. .venv/bin/lint-imports --no-logo --no-cache
	@$(PYTHON) -m tools.shape
	@$(PYTHON) -m tools.sentences
	@tools/audit --where-reachable

.PHONY: audit
audit: setup ## ask the public advisory database about every pinned package
	@tools/audit

.PHONY: shape
shape: setup ## print the shape of the code in figures, and what misses a goal
	@$(PYTHON) -m tools.shape

.PHONY: fleet-faults
fleet-faults: setup ## kill a fleet's run 50 times, one with a tenant column 25 times, and fleet-sync 50 times
	@FLEET_KILLS=50 $(PYTHON) -m pytest -q -n 2 tests/integration/test_fleet_faults.py \
		tests/integration/test_fleet_live.py -k kills

.PHONY: pictures
pictures: setup ## make docs/images from real runs: a demo under load, its dashboard, its report
	@tools/system-packages chromium prometheus
	@$(PYTHON) -m tools.pictures

.PHONY: docs
docs: setup ## write docs/commands.md and docs/settings.md again from the code
	@$(PYTHON) -m tools.reference

.PHONY: site
site: ## build the documentation as a site in site/, with search; each link is checked
	@tools/setup site
	@.venv-site/bin/python -m tools.site

# -------------------------------------------------------------------------- on Docker, by Pulumi

.PHONY: up
up: setup ## provision STAGE, migrate, verify, switch (pulumi up)
	@tools/stage up "$$STAGE"

.PHONY: check
check: setup ## test what was provisioned for STAGE
	@tools/stage check "$$STAGE"

.PHONY: down
down: setup ## go back to SQLite, then remove STAGE (pulumi destroy)
	@tools/stage down "$$STAGE"

.PHONY: status
status: setup ## say which side serves STAGE's application, and what to do next
	@$(PYTHON) -m tools.status "$$STAGE"

.PHONY: config
config: setup ## read or change STAGE's settings: ARGS="set poolMax 40" (pulumi config)
	@$(WORDS_OF) ARGS tools/stage config "$$STAGE"

.PHONY: pulumi
pulumi: setup ## any other command of Pulumi's on STAGE: ARGS="stack output"
	@$(WORDS_OF) ARGS tools/stage pulumi "$$STAGE"

.PHONY: images
images: setup ## pull the container images, or build them, ahead of `make up`
	@tools/docker-engine
	@$(PYTHON) -m infra.images -- "$$STAGE"

.PHONY: rotate
rotate: setup ## replace STAGE's passwords without a failed request
	@tools/stage rotate "$$STAGE"

.PHONY: upgrade
upgrade: setup ## move STAGE's application to PostgreSQL TO=18 while it runs; BACK=1, SETTLE=1 and REMOVE=1 go on
	@tools/stage upgrade "$$STAGE"

.PHONY: switchover
switchover: setup ## have another member of STAGE's PostgreSQL lead, without a failed query (postgresMembers: 3)
	@tools/docker-engine
	@$(PYTHON) -m infra.switchover $${TO:+--to="$$TO"} -- "$$STAGE"

.PHONY: restore
restore: setup ## restore STAGE's database beside itself, as it was AT='...+00'; INPLACE=1 where it is lost
	@$(PYTHON) -m infra.restore $${REMOVE:+--remove} $${INPLACE:+--in-place} $${AT:+--at="$$AT"} -- "$$STAGE"
	@[ -z "$$INPLACE" ] || tools/stage up "$$STAGE"

.PHONY: drill
drill: setup ## restore STAGE's newest backup into a throw-away server, and compare it, at once
	@$(PYTHON) -m infra.drill -- "$$STAGE"

.PHONY: restore-sqlite
restore-sqlite: setup ## write the SQLite file as it was before STAGE's migration to TO=file.db
	@$(PYTHON) -m infra.restore_sqlite -- "$$STAGE" "$$TO"

# ------------------------------------------------------------------------------ for developers

.PHONY: model
model: setup ## check the protocol's model in every reachable state (needs spin and gcc)
	@tools/system-packages spin
	@$(PYTHON) -m model.check

.PHONY: faults
faults: setup ## kill each part at each step, under load, in both directions, and in an upgrade (over half an hour)
	@tools/system-packages
	@FAULTS=all $(PYTHON) -m pytest tests/faults -n 2

.PHONY: cluster
cluster: setup ## lose and move the leader of a Patroni cluster at each phase; writes docs/clusters.md
	@tools/system-packages patroni etcd=etcd-server haproxy
	@$(WORDS_OF) OPTIONS $(PYTHON) -m tests.cluster.matrix

.PHONY: failovers
failovers: setup ## kill, cut off and switch over the servers of a stage of three, 20 times each; writes docs/how-to/stand-by.md
	@tools/docker-engine
	@$(WORDS_OF) OPTIONS $(PYTHON) -m tests.deployment.failovers --page

.PHONY: life
life: setup ## take stages through their whole life under load, up to down, on one server and on three (half an hour)
	@tools/docker-engine
	@$(PYTHON) -m pytest -s tests/deployment/test_life.py

.PHONY: property
property: setup ## take 2,000 random databases there, and 2,000 there and back, and compare them by a third way
	@PROPERTY_EXAMPLES=2000 PROPERTY_BACK_EXAMPLES=2000 $(PYTHON) -m pytest \
		tests/integration/test_property.py tests/integration/test_property_back.py
	@PROPERTY_EXISTING_EXAMPLES=2000 PROPERTY_EXISTING_BACK_EXAMPLES=2000 $(PYTHON) -m pytest -n 2 \
		tests/integration/test_property_existing.py \
		tests/integration/test_property_existing_back.py

.PHONY: applications
applications: setup ## move real applications there while they write, use them, upgrade them, and come back; writes docs/applications.md
	@APPLICATIONS_PAGE=docs/applications.md $(PYTHON) -m pytest tests/applications

.PHONY: bench-guard
bench-guard: setup ## fail where fixed work costs a tenth more than was recorded, by instructions where they are counted
	@tools/system-packages valgrind
	@$(WORDS_OF) OPTIONS $(PYTHON) -m benchmarks.guard

.PHONY: bench
bench: setup ## measure this project and its peers side by side; writes docs/benchmarks.md
	@$(WORDS_OF) OPTIONS $(PYTHON) -m benchmarks
