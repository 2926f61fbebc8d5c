# Commands for this project. Start with `make run` and `make test`; both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := .tools/bin
KUSTOMIZE_VERSION := v5.8.1
HELM_VERSION := v3.21.4

.PHONY: manifests-test vendored run test e2e soak fuzz mutation audit lint docs pictures clean pyz image image-test release-check

run: $(VENV)/.sandbox
	@$(BIN)/python -m sandbox

test: $(VENV)/.test
	$(BIN)/pytest -n auto --dist worksteal --cov --cov-report=term --cov-fail-under=90 $(PYTEST_ARGS)

# Real parts in network namespaces, with faults. It needs Linux and root, and says so where it cannot run.
# FAULTS=write also writes docs/faults.md anew.
FAULTS ?=
e2e: $(VENV)/.test
	$(BIN)/python -m tests.e2e.requirements
	KUBENURSE_E2E_FAULTS=$(FAULTS) $(BIN)/pytest tests/e2e $(PYTEST_ARGS)

# One agent, a day's rounds in a quarter of an hour, with guests and hostile clients; ROUNDS=2000 takes two minutes.
ROUNDS ?= 17280
soak: $(VENV)/.sandbox
	$(BIN)/python -m bench.soak --rounds $(ROUNDS) $(SOAK_ARGS)

# Any bytes for every reader of outside input, SECONDS for each of them. Inputs that fail are kept in fuzz/corpus/.
SECONDS ?= 30
fuzz: $(VENV)/.fuzz
	$(BIN)/python -m fuzz --seconds $(SECONDS) $(FUZZ_TARGETS)

# Small changes of the code, each of which some test has to notice; mutants/ keeps them for `mutmut show`.
# MUTANTS='checks.targets.*' takes one room; all of them take an hour. It is not part of CI.
MUTANTS ?=
mutation: $(VENV)/.mutation
	rm -rf mutants
	$(BIN)/mutmut run $(MUTANTS)
	$(BIN)/mutmut results

# Known vulnerabilities of the pinned packages. It asks PyPI; AUDIT_ARGS="-s osv --osv-url URL" asks a copy of the OSV
# database inside a closed network. A package that cannot be looked up is a failure, not a pass.
audit: $(VENV)/.audit
	$(BIN)/pip-audit --strict --requirement requirements.txt --require-hashes --disable-pip $(AUDIT_ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports setup.cfg

# Generated files: tables in READMEs and docs, copies of the rules in manifests and chart, dashboards.
docs: $(VENV)/.sandbox
	$(BIN)/python -m tools.readme
	$(BIN)/python -m tools.chart_readme
	$(BIN)/python -m tools.shipped_rules
	$(BIN)/python -m tools.dashboards

# The pictures of the documentation: the table of `make run`, and the architecture (needs Graphviz).
pictures: $(VENV)/.sandbox
	$(BIN)/python -m tools.picture
	dot -Tsvg docs/pictures/architecture.dot -o docs/pictures/architecture.svg

# The single file with all dependencies. PYZ_PYTHON=python3.13 makes it start fastest on that version.
PYZ_PYTHON ?= $(BIN)/python
pyz: $(VENV)/.sandbox
	$(BIN)/python -m tools.pyz --python $(PYZ_PYTHON)

# The image, built by docker or podman, whichever works. IMAGE is its name; IMAGE_ARGS are options for the builder.
image: $(VENV)/.sandbox
	$(BIN)/python -m tools.image $(IMAGE) -- $(IMAGE_ARGS)

# The image on a base made by debootstrap, run beside the sandbox. Needs root and Debian; it says what is missing.
image-test: $(VENV)/.test
	$(BIN)/python -m tests.image.requirements
	$(BIN)/pytest tests/image $(PYTEST_ARGS)

# Manifests and chart, rendered by the real kustomize and helm. Go installs them into .tools/ if they are missing.
manifests-test: $(VENV)/.test
	@$(MAKE) --no-print-directory --keep-going $(TOOLS)/kustomize $(TOOLS)/helm || \
	  echo "Not installed, because Go or its module proxy is missing: tests that need these programs are skipped." >&2
	$(BIN)/pytest -n auto tests/shipping/test_manifests.py tests/shipping/test_overlays.py tests/shipping/test_chart*.py

$(TOOLS)/kustomize:
	GOBIN=$(CURDIR)/$(TOOLS) go install -ldflags='-s -w' sigs.k8s.io/kustomize/kustomize/v5@$(KUSTOMIZE_VERSION)

$(TOOLS)/helm:
	GOBIN=$(CURDIR)/$(TOOLS) go install -ldflags='-s -w' helm.sh/helm/v3/cmd/helm@$(HELM_VERSION)

# The single file, copied to where the kustomization `vendored` can read it.
vendored: pyz
	cp dist/kubenurse.pyz manifests/components/vendored/

# Checks that this tree can be released. It checks the files before and after the tests, so the tested files are released.
release-check: $(VENV)/.lint
	$(BIN)/python -m tools.release_check
	$(MAKE) --no-print-directory lint test manifests-test pyz image-test
	$(BIN)/python -m tools.release_check

clean:
	rm -rf $(VENV) build dist mutants *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv module. Remedy: apt-get install python3-venv (as root), then try again." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is older than 3.11. Remedy: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.sandbox: $(BIN)/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[sandbox]'
	@touch $@

$(VENV)/.test: $(BIN)/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test]'
	@touch $@ $(VENV)/.sandbox

$(VENV)/.fuzz: $(VENV)/.test
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test,fuzz]'
	@touch $@

$(VENV)/.mutation: $(VENV)/.test
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test,mutation]'
	@touch $@

$(VENV)/.audit: $(BIN)/python setup.cfg
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[audit]'
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test,lint]'
	@touch $@
