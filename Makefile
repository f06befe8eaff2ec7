# `make cluster-up` and friends: see tests/cluster/README.md.
NAME ?= modelwright

CLUSTER := target/cluster

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
	cd tests/cluster && go vet . ./pause && go test -count=1 ./...

# always asked: go build itself knows what is up to date
.PHONY: $(CLUSTER)
$(CLUSTER):
	@cd tests/cluster && CGO_ENABLED=0 go build -o ../../$@ .
