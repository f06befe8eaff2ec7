# The local cluster's name. `make cluster-up` and friends: see tests/cluster/README.md.
NAME ?= modelwright

CLUSTER := target/cluster
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
TOOLCHAIN := $(shell sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)

# Where the pinned compiler goes by the name stable, rustup need not download it again.
ifneq ($(shell RUSTUP_TOOLCHAIN=stable rustc --version 2>/dev/null | grep -F ' $(TOOLCHAIN) '),)
export RUSTUP_TOOLCHAIN := stable
endif

# Builds are kept outside the checkout, so that a fresh clone starts warm. Cargo itself knows what a new lock changes.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/modelwright
export CARGO_TARGET_DIR := $(CACHE)/target-$(TOOLCHAIN)

## every day

.PHONY: check test test-protocol test-e2e demo images image-cuda install

# format, lints for each set of features, unit tests
check:
	cargo fmt --all --check
	cargo clippy --quiet --locked --no-default-features --features operator --all-targets -- -D warnings
	cargo clippy --quiet --locked --no-default-features --features gateway --all-targets -- -D warnings
	cargo clippy --quiet --locked --no-default-features --features loader --all-targets -- -D warnings
	cargo clippy --quiet --locked --no-default-features --features server --all-targets -- -D warnings
	cargo clippy --quiet --locked --features e2e,faults --all-targets -- -D warnings
	cargo test --quiet --locked
	cd tests/cluster && go vet . ./pause
	@echo "make check: all is well"

# everything that CI checks
test: check test-protocol test-fuzz test-asan test-dashboard test-cluster test-operator test-e2e
	@echo "make test: all is well"

# the protocol as others see it, of the server and through the gateway: conformance suite, Triton's clients, schemathesis;
# SECONDS= for the last
test-protocol:
	@cargo build --quiet --locked --bin modelwright-server --bin modelwright-gateway
	@tests/conformance/run.sh $(addprefix $(CARGO_TARGET_DIR)/debug/modelwright-,server gateway) $(SECONDS)

# the whole, on clusters of its own (or KUBECONFIG's, without the load), from images that are built now
test-e2e: $(CLUSTER) images
	@tests/e2e.sh $(CLUSTER) $(VERSION)
	@[ -n "$(KUBECONFIG)" ] || tests/e2e/traffic.sh $(CLUSTER) $(VERSION)

# a model from kubectl apply to answers; KUBECONFIG= another cluster than one of our own
demo: $(CLUSTER)
	@demo/run.sh $(CLUSTER) $(NAME) $(VERSION)

# archives in target/images, for `target/cluster load`, `docker load` or `ctr images import`
images: $(CLUSTER)
	@tests/tools/images.sh $(CLUSTER) $(VERSION)

# the server with CUDA, from wheels: gigabytes, and no part of the tests
image-cuda: $(CLUSTER)
	@tests/tools/image-cuda.sh $(CLUSTER) $(VERSION)

# images and chart, onto the local cluster
install: images
	@tests/tools/install.sh $(CLUSTER) $(NAME)

# The dashboard and the alerts, on a real Prometheus that scrapes a real server; the query of an analysis
.PHONY: test-dashboard
test-dashboard:
	cargo test --quiet --locked --features e2e,faults --test server_dashboard --test prometheus

## the local cluster

.PHONY: cluster-up cluster-down cluster-status cluster-env cluster-s3 cluster-metrics-server cluster-keda test-cluster

# NODES=2 GPUS=2 CONTROL_PLANE_ONLY=1 AUDIT=1 FAKE_STATE=file FAKE_TERMINATION_MESSAGE=file REAL_PROCESSES=folder
cluster-up: $(CLUSTER)
	@$(CLUSTER) up $(NAME) \
		$(if $(NODES),--nodes=$(NODES)) \
		$(if $(GPUS),--gpus=$(GPUS)) \
		$(if $(CONTROL_PLANE_ONLY),--control-plane-only) \
		$(if $(AUDIT),--audit) \
		$(if $(FAKE_STATE),--fake-state=$(FAKE_STATE)) \
		$(if $(FAKE_TERMINATION_MESSAGE),--fake-termination-message=$(FAKE_TERMINATION_MESSAGE)) \
		$(if $(REAL_PROCESSES),--real-processes=$(REAL_PROCESSES))

cluster-down: $(CLUSTER)
	@$(CLUSTER) down $(NAME)

cluster-status: $(CLUSTER)
	@$(CLUSTER) status $(NAME)

# eval "$$(make -s cluster-env)"
cluster-env: $(CLUSTER)
	@$(CLUSTER) env $(NAME)

# an S3 store in the cluster, in namespace s3
cluster-s3: $(CLUSTER)
	@$(CLUSTER) s3 $(NAME)

# metrics-server in the cluster, for kubectl top and HorizontalPodAutoscalers
cluster-metrics-server: $(CLUSTER)
	@$(CLUSTER) metrics-server $(NAME)

# KEDA in the cluster
cluster-keda: $(CLUSTER)
	@$(CLUSTER) keda $(NAME)

test-cluster: $(CLUSTER)
	cd tests/cluster && CLUSTER=$(abspath $(CLUSTER)) CGO_ENABLED=0 go test -count=1 -timeout=60m .

## hostile input

.PHONY: fuzz test-fuzz test-asan

# Every target for SECONDS=10, or TARGET= one; INPUT= a file that it should read.
fuzz:
	@INPUT=$(abspath $(INPUT)) fuzz/run.sh $(or $(SECONDS),10) $(TARGET)

# A short search, the same every time: a failure is of a change, and not of chance.
test-fuzz:
	@fuzz/run.sh test

# The unsafe code, under AddressSanitizer. It is an option that only unstable compilers take, or this variable's.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
test-asan:
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=$(CACHE)/asan cargo test --quiet --locked \
		--target $(HOST) --no-default-features --features server --test server_stress

## the operator, on a cluster without kubelets

.PHONY: test-operator bench

OPERATOR := --no-default-features --features operator

# Crash at every write, alone and under load, leader election, schema rules, children. SEED=, PLANS=, JOURNEYS= and
# PARALLEL= vary the crashes.
test-operator: $(CLUSTER)
	@PROGRAMS=$(CARGO_TARGET_DIR)/debug TEST_ARGUMENTS=--nocapture tests/common/run.sh $(CLUSTER) operator-test test \
		--features e2e,faults --test crash --test crash_traffic --test leader --test rules --test rules_children \
		--test rules_gateways

# One JSON object a line and figure. ONLY= one of operator, server, gateway, ledger, crash, zero, autoscaling,
# perf-analyzer, soak, or a half of the first: operator-objects, operator-decisions. For a shorter run:
# operator-objects: N= REST_SECONDS=; operator-decisions: N= SECONDS= SEED=, and MOST= for more than N; server: ROUNDS=
# SECONDS= and FIGURE=server.tiny, a prefix; gateway: ROUNDS= SECONDS= CHANGES= and FIGURE=gateway.cost, .real or .rss;
# ledger: REQUESTS= ROLLOUTS= RATE=; crash: JOURNEYS=; zero: CYCLES= SEED=; soak: SOAK_MINUTES=.
bench: $(addprefix bench-,$(or $(ONLY),operator server gateway))

# It takes port 8080 of this machine: the server's, as the gateway knows it.
bench-gateway: $(CLUSTER)
	@cargo bench --quiet --locked --no-default-features --features gateway,server --bench gateway
	@[ -n "$(FIGURE)" ] || tests/common/run.sh $(CLUSTER) bench bench --quiet $(OPERATOR),gateway --bench gateway_routes

# Rollouts under load on the local cluster: an hour.
bench-ledger: $(CLUSTER) images
	@tests/e2e/traffic.sh $(CLUSTER) $(VERSION) ledger

# A crash at every write under load. What it measures is no speed: the programs are those of test-operator.
bench-crash: $(CLUSTER)
	@PROGRAMS=$(CARGO_TARGET_DIR)/debug tests/common/run.sh $(CLUSTER) bench bench --quiet --profile dev \
		--features e2e,faults --bench crash

# A model to zero and back on the local cluster: half an hour.
bench-zero: $(CLUSTER) images
	@tests/e2e/traffic.sh $(CLUSTER) $(VERSION) zero

.PHONY: bench-operator bench-operator-objects bench-operator-decisions bench-server bench-gateway bench-ledger bench-crash \
	bench-zero bench-autoscaling bench-perf-analyzer bench-soak
bench-operator: bench-operator-objects bench-operator-decisions

bench-operator-objects: $(CLUSTER)
	@tests/common/run.sh $(CLUSTER) bench bench $(OPERATOR) --bench operator

bench-operator-decisions: $(CLUSTER)
	@tests/common/run.sh $(CLUSTER) bench bench --quiet $(OPERATOR) --bench operator_decisions

# The simulator. TRACE= a file of arrival times, a number of seconds a line; SEED= others than the table's traces, of more
# kinds; PLOTS= a folder for pictures
bench-autoscaling:
	@cargo bench --quiet --locked $(OPERATOR) --bench autoscaling

# SERVER=another binary instead of the one built now
SERVER_BENCH := cargo bench --quiet --locked --no-default-features --features server --bench server --

bench-server:
	@$(SERVER_BENCH) figures

bench-perf-analyzer:
	@$(SERVER_BENCH) perf-analyzer

bench-soak:
	@$(SERVER_BENCH) soak

# always asked: go build itself knows what is up to date
.PHONY: $(CLUSTER)
$(CLUSTER):
	@cd tests/cluster && CGO_ENABLED=0 go build -o ../../$@ .
