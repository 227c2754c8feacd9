# Everything this repository needs, from a machine with Python, make and git. The first call sets up .venv.

PYTHON ?= python3
ARGS ?=
# cuda: PyTorch as PyPI has it. cpu: without CUDA, from PyTorch's own index, whose files requirements.lock has no hashes of.
TORCH ?= cuda
export MUJOCO_GL ?= egl
export UV_PYTHON_DOWNLOADS ?= never
export UV_HTTP_TIMEOUT ?= 300

ready := .venv/.ready
# uv from PATH, otherwise the one in requirements.lock, installed into .venv by pip
install = $(uv) pip install --python .venv/bin/python --no-deps --only-binary :all:
uv = $(or $(shell command -v uv 2>/dev/null),.venv/bin/uv)

.PHONY: help setup demo test coverage smoke lint types docs format lock resolve wheel clean

help:
	@echo 'make demo    this machine, no robot: demonstrations, training, fine-tuning, evaluation, a plot'
	@echo 'make test    every test, three at a time; ARGS="-k spool" is handed to pytest, as to the demo'
	@echo 'make coverage  the tests, and how much of the code they run: .coverage_report/index.html'
	@echo 'make smoke   whole learning runs on the fake environment, by all processes: nothing must crash'
	@echo 'make lint    ruff and mypy; make format formats'
	@echo 'make types   type-checks the JavaScript of the pages; needs npm'
	@echo 'make docs    the documentation as a site, site/index.html; every warning is an error'
	@echo 'make setup   only the set-up that the others do first; PYTHON=python3.12 picks the Python,'
	@echo '             TORCH=cpu takes PyTorch without CUDA (after make clean, if .venv exists)'
	@echo 'make lock    requirements.lock anew from pyproject.toml'
	@echo 'make resolve asks PyPI whether every extra can be installed: x86_64, aarch64, Python 3.10 to 3.14'
	@echo 'make wheel   dist/*.whl, tried in an empty environment outside this folder'
	@echo 'make clean   remove .venv and caches; demos/ and runs/ stay'

demo: $(ready)
	.venv/bin/python -m tools.demo $(ARGS)

test: $(ready)
	@$(PYTHON) tools/setup/system_packages.py tests
	.venv/bin/python -m pytest -n 3 --dist worksteal $(ARGS)

coverage: $(ready)
	rm -rf .coverage .coverage.* .coverage_report
	.venv/bin/python -m pytest -n 3 --dist worksteal --cov --cov-report=term:skip-covered --cov-report=html $(ARGS)

smoke: $(ready)
	rm -rf runs/learning/smoke
	.venv/bin/python -m tools.learning --suite smoke --parallel 2
	.venv/bin/python -m tools.learning.report runs/learning/smoke

lint: $(ready)
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

docs: $(ready)
	.venv/bin/python -m tools.docs.configuration
	NO_COLOR=1 .venv/bin/zensical build --strict --clean

types:
	for page in tools/panel/types/*.json; do npx --yes --package typescript@5.9.3 tsc --project $$page || exit 1; done

format: $(ready)
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

setup: $(ready)

# One set-up at a time: a second call waits for the first, and then finds that there is nothing to do.
ifndef LOCKED
$(ready): requirements.lock pyproject.toml
	@$(shell command -v flock >/dev/null && echo flock .venv.lock) $(MAKE) --no-print-directory LOCKED=1 $@
else
# .venv.installing is there while .venv is being made or changed: found at the start, it means that an earlier call
# was interrupted, and .venv is made anew.
$(ready): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' || \
	  { echo 'This needs Python 3.10 to 3.14, and $(PYTHON) is not one: make PYTHON=/path/to/python3 ...' >&2; exit 1; }
	@[ "$$(uname)" = Linux ] || { echo 'This needs Linux, and here is '"$$(uname)"': use a Linux computer.' >&2; exit 1; }
	@case '$(TORCH)' in cpu|cuda) ;; *) echo 'TORCH=$(TORCH): cpu or cuda' >&2; exit 1;; esac
	@$(PYTHON) tools/setup/system_packages.py
	@if [ -e .venv.installing ] || ! .venv/bin/python -c '' 2>/dev/null; then rm -rf .venv && \
	  if [ '$(TORCH)' = cuda ]; then echo 'The first set-up downloads about 3.5 GB (torch with CUDA; TORCH=cpu: without) and' \
	    'needs 7 GB of disk.'; fi; fi
	@touch .venv.installing
	@[ -d .venv ] || if command -v uv >/dev/null; then uv venv -q --python '$(PYTHON)' .venv; \
	  else '$(PYTHON)' -m venv .venv; fi
	@command -v uv >/dev/null || [ -x .venv/bin/uv ] || { sed -n '/^uv==/,/[^\\]$$/p' requirements.lock >.venv/uv.lock && \
	  .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r .venv/uv.lock; }
ifeq ($(TORCH),cpu)
	@$(PYTHON) tools/setup/cpu_lock.py .venv
	$(install) --require-hashes -r .venv/cpu.lock
	$(install) --torch-backend cpu -r .venv/torch.txt
else
	$(install) --require-hashes -r requirements.lock
endif
	@$(uv) pip install -q --python .venv/bin/python --no-deps --no-build-isolation -e .
	@touch $@ && rm .venv.installing
endif

lock:
	$(uv) pip compile -q pyproject.toml --extra dev --universal --python-version 3.10 --upgrade --only-binary :all: \
	  --generate-hashes --no-annotate --no-header --no-emit-index-url -o requirements.lock

resolve: $(ready)
	.venv/bin/python tools/setup/resolve.py $(ARGS)

wheel: $(ready)
	.venv/bin/python tools/setup/wheel.py $(ARGS)

clean:
	rm -rf .venv .venv.installing .venv.lock build dist site .cache *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find agent robot_server envs tools tests -name __pycache__ -prune -exec rm -rf {} +
