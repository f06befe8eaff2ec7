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

# a model from kubectl apply to answers; KUBECONFIG= another cluster than one of our own
.PHONY: demo
demo: $(CLUSTER)
	@demo/run.sh $(CLUSTER) $(NAME) $(VERSION)

## images: archives in target/images, for `target/cluster load`, `docker load` or `ctr images import`

.PHONY: images
images: $(CLUSTER)
	@tests/tools/images.sh $(CLUSTER) $(VERSION)

## the local cluster

.PHONY: cluster-up cluster-down cluster-status cluster-env cluster-s3 test-cluster

# NODES=2 GPUS=2 CONTROL_PLANE_ONLY=1 AUDIT=1 FAKE_STATE=file FAKE_TERMINATION_MESSAGE=file
cluster-up: $(CLUSTER)
	@$(CLUSTER) up $(NAME) \
		$(if $(NODES),--nodes=$(NODES)) \
		$(if $(GPUS),--gpus=$(GPUS)) \
		$(if $(CONTROL_PLANE_ONLY),--control-plane-only) \
		$(if $(AUDIT),--audit) \
		$(if $(FAKE_STATE),--fake-state=$(FAKE_STATE)) \
		$(if $(FAKE_TERMINATION_MESSAGE),--fake-termination-message=$(FAKE_TERMINATION_MESSAGE))

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

test-cluster: $(CLUSTER)
	cd tests/cluster && CLUSTER=$(abspath $(CLUSTER)) CGO_ENABLED=0 go test -count=1 -timeout=10m .

# always asked: go build itself knows what is up to date
.PHONY: $(CLUSTER)
$(CLUSTER):
	@cd tests/cluster && CGO_ENABLED=0 go build -o ../../$@ .
