# vmbridge. "make" alone lists the targets.

SHELL       := /bin/bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := help

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS  := -s -w -X main.version=$(VERSION)
PLATFORMS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64
FUZZTIME ?= 10s
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# TIMEOUT is for one package's tests; TESTFLAGS adds flags to go test.
TIMEOUT   ?= 30m
TESTFLAGS ?=

export CGO_ENABLED := 0

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: agents ## build bin/vmbridge and bin/vmbridge-guest, static
	$(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/ ./cmd/vmbridge ./cmd/vmbridge-guest

# The daemon carries the agents for guests of both kinds. gzip without name and
# time: the same source makes the same daemon.
AGENTS := hostside/agentbin/agents

.PHONY: agents
agents:
	@mkdir -p bin/agents
	@for arch in amd64 arm64; do \
	  agent=vmbridge-guest-$$arch; echo "build linux/$$arch agent"; \
	  GOOS=linux GOARCH=$$arch $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/agents/$$agent ./cmd/vmbridge-guest; \
	  gzip -9nc bin/agents/$$agent > bin/agents/$$agent.gz; \
	  cmp -s bin/agents/$$agent.gz $(AGENTS)/$$agent.gz || mv bin/agents/$$agent.gz $(AGENTS)/$$agent.gz; \
	done; rm -r bin/agents

.PHONY: run
run: build ## build, then run the daemon on the sandbox guest (as root, on Linux)
	exec bin/vmbridge up --enable

.PHONY: test
# One package at a time: some tests measure, and some fill the machine.
test: ## install what the tests need, then vet, cross-build and test everything
	tests/deps.sh
	$(MAKE) --no-print-directory vet cross
	CGO_ENABLED=1 $(GO) test -race -count=1 -p 1 -timeout $(TIMEOUT) -json $(TESTFLAGS) ./... | CGO_ENABLED=0 $(GO) run ./tests/summary

.PHONY: vet
vet: ## go vet for linux, darwin and windows
	@for os in linux darwin windows; do echo "vet $$os"; GOOS=$$os $(GO) vet ./... || exit 1; done

.PHONY: cross
cross: ## build for every supported system, without cgo
	@for p in $(PLATFORMS); do echo "build $$p"; GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -buildvcs=false -o /dev/null ./... || exit 1; done

.PHONY: bench
bench: build ## measure, and print one table
	tests/deps.sh
	$(GO) run ./tests/bench

.PHONY: bench-vm
bench-vm: ## measure the ways into an emulated virtual machine
	tests/deps.sh
	$(GO) test -run '^$$' -bench '^BenchmarkMachine$$' -benchtime 7x -timeout $(TIMEOUT) ./tests/vm

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (10s) each
	@$(GO) list -f '{{$$p := .ImportPath}}{{$$d := .Dir}}{{range .TestGoFiles}}{{$$p}} {{$$d}}/{{.}}{{"\n"}}{{end}}{{range .XTestGoFiles}}{{$$p}} {{$$d}}/{{.}}{{"\n"}}{{end}}' ./... | \
	while read -r package file; do \
	  [ -n "$$package" ] || continue; \
	  for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$$file"); do \
	    echo "fuzz $$package $$target"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" </dev/null || exit 1; \
	  done; \
	done

.PHONY: lint
lint: vet ## gofmt, go vet and staticcheck
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "gofmt these:"; echo "$$out"; exit 1; fi
	$(GO) run $(STATICCHECK) ./...

.PHONY: clean
clean: ## remove what was built
	rm -rf bin $(AGENTS)/*.gz
