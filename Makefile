# What CI runs is `make test`; `make help` lists the rest.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO          ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

SEEDS    ?= 1000  # make sim SEEDS=20000
SEED     ?=       # make sim SEED=17 replays one, and tells its story
PKG      ?= ./... # make bench PKG=./causal
BENCH    ?= .
FUZZTIME ?= 10s

# Packages with goroutines or shared memory of their own, the longest first; the rest is pure or runs whole processes.
RACE := cluster connector/file raftmeta checkpoint transport determinant causal timers inflightlog standby task operator

# All that go vet says, `vet` says.
TEST := $(GO) test -vet=off

# Pebble needs no C when cgo is off; the race detector needs it on.
export CGO_ENABLED := 0

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

# Where tests find PostgreSQL, empty if there is none. go test says nothing of tests that skip, so that `test` does.
POSTGRES ?= $(shell command -v initdb || ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null)

.PHONY: test
test: build vet lint unit race sim ## everything CI checks
	@[ -n "$(strip $(POSTGRES))" ] || { echo; echo "LEFT OUT: PostgreSQL is not installed. Not tested: connector/postgres with a server," \
		"understudy run from and to tables (cmd/understudy). To test them: apt-get install postgresql"; }

.PHONY: build
build: ## compile all packages, and the commands into bin/
	$(GO) build $$($(GO) list -f '{{if ne .Name "main"}}{{.ImportPath}}{{end}}' ./...)
	$(GO) build -o bin/ ./cmd/... # the examples are built by their tests

.PHONY: vet
vet:
	$(GO) vet ./...

# Three packages at a time, those that wait most first. What others run is left to them: `rules` internal/lint, `sim` TestSeeds, and
# `race` two packages that take long and do the same under it, but for one test, which asks for less there.
.PHONY: unit
unit: ## unit tests and process tests, but for what `race` and `sim` run
	$(TEST) -p 3 -timeout 10m -skip '^TestSeeds$$' ./cmd/understudy ./connector/postgres \
		$$($(GO) list ./... | grep -vE '/understudy/(internal/lint|cluster|connector/file)$$')
	$(TEST) -timeout 5m ./cluster -run '^TestDeterminantLogsStayBounded$$'

.PHONY: race
race: ## engine packages under the race detector
	CGO_ENABLED=1 $(TEST) -race -timeout 10m $(foreach p,$(RACE),$(if $(wildcard $(p)),./$(p)/...))

.PHONY: sim
sim: ## the simulation: SEEDS=n of them, or SEED=k alone
	$(TEST) ./internal/sim -run '^TestSeeds$$' -count=1 -timeout 5m \
		$(if $(strip $(SEED)),-v -sim.seed=$(SEED),-sim.seeds=$(SEEDS))

.PHONY: sims
sims: ## all kinds of simulation, SEEDS of each: drains, changes of mode, transactions, growth; and mutants for longer
	$(GO) test ./internal/sim -v -count=1 -timeout 24h -sim.seeds=$(strip $(SEEDS)) -sim.drains=$(strip $(SEEDS)) -sim.switches=$(strip $(SEEDS)) \
		-sim.transactions=$(strip $(SEEDS)) -sim.growths=$(strip $(SEEDS)) -sim.zero -sim.controls=20 -sim.schedules=40

.PHONY: lint
lint: fmt-check rules staticcheck generate-check tidy-check ## house rules, staticcheck, formatting, tidiness

.PHONY: rules
rules:
	$(GO) test -count=1 ./internal/lint

.PHONY: staticcheck
staticcheck:
	$(GO) run $(STATICCHECK) ./...

.PHONY: fmt-check
fmt-check:
	@bad=$$(gofmt -l .); [ -z "$$bad" ] || { echo "not formatted by gofmt:"; echo "$$bad"; exit 1; }

.PHONY: tidy-check
tidy-check: ## go.mod and go.sum are tidy
	$(GO) mod tidy -diff

.PHONY: generate-check
generate-check:
	@grep -rq '^//go:generate' --include='*.go' . || exit 0; \
	state() { git diff; git ls-files --others --exclude-standard -z | xargs -0r sha256sum; }; \
	before=$$(state); $(GO) generate ./...; \
	[ "$$before" = "$$(state)" ] || { echo "generated files were stale"; git status --short; exit 1; }

.PHONY: nats
nats: ## the NATS connector's long tests: a cluster of servers, many kills, many broken connections
	$(GO) test ./connector/nats -count=1 -timeout 20m -nats.long -rapid.checks=1000
.PHONY: crash-file
crash-file: ## the file sink dies, or is stopped, at every system call: some minutes
	UNDERSTUDY_EVERY_CALL=1 $(GO) test ./connector/file -run 'Crash|Stopped|Conforms' -timeout 60m -count 1

.PHONY: bench
bench: ## benchmarks: PKG=./causal BENCH=Append
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem $(PKG)

.PHONY: fuzz
fuzz: ## each fuzz test for FUZZTIME
	@{ grep -rHo '^func Fuzz[A-Za-z0-9_]*' --include='*_test.go' . || true; } | while IFS=: read -r file fn; do \
		$(GO) test -run '^$$' -fuzz "^$${fn#func }\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")"; \
	done

.PHONY: demo
demo: ## kill processes of a cluster, watch who takes over, then check the output from outside
	$(GO) build -o bin/ ./cmd/understudy
	@bin/understudy demo

CHAOS      ?= 10m # make chaos CHAOS=1h CHAOS_SEED=7
CHAOS_SEED ?= 1

.PHONY: chaos
chaos: ## jobs on processes that are killed, stopped and cut off, for CHAOS
	$(GO) test ./cmd/understudy -run '^TestChaos$$' -v -count=1 -timeout 24h -chaos.total=$(strip $(CHAOS)) -chaos.seed=$(strip $(CHAOS_SEED)) \
		-chaos.rate=300

.PHONY: postgres
postgres: ## connector/postgres: connections that break at every request, long random sequences, throughput
	UNDERSTUDY_NO_SKIP=1 $(GO) test ./connector/postgres -count=1 -timeout 20m -postgres.all -rapid.checks=500
	UNDERSTUDY_NO_SKIP=1 $(GO) test ./connector/postgres -run '^$$' -bench . -timeout 20m

SOAK ?= 10m # make soak SOAK=1h

.PHONY: soak
soak: ## two queries at full rate for SOAK each: memory and disk stay flat
	$(GO) test ./internal/bench -run '^TestSoak$$' -v -count=1 -timeout 24h -bench.soak=$(strip $(SOAK))

.PHONY: nexmark
nexmark: ## Nexmark: the answers for a million events, and every query on workers that are killed
	$(GO) test ./internal/nexmark -run '^TestMillion' -v -count=1 -timeout 20m -nexmark.million
	$(GO) test ./cmd/understudy -run '^TestNexmarkOnKilledWorkers$$' -v -count=1 -timeout 20m -nexmark.all

LATENCY ?= --repeats 3 --seconds 5 # make latency LATENCY='--rate 2000 --report latency.html' KAFKA=host:port

.PHONY: latency
latency: ## how long after a record was due a reader of each sink sees it; servers are started for it
	UNDERSTUDY_NO_SKIP=1 KAFKA=$(strip $(KAFKA)) $(GO) test ./cmd/understudy -run '^TestLatency$$' -v -count=1 -timeout 2h -latency="$(strip $(LATENCY))"

SECONDS      ?= 60 # make outside SECONDS=10 OUTSIDE=nats/server OUTSIDE_SEED=7
OUTSIDE      ?=
OUTSIDE_SEED ?= 1

.PHONY: outside
outside: ## every sink while workers, the cluster and the sink's own server are killed, SECONDS each, read back by its own client
	UNDERSTUDY_NO_SKIP=1 $(GO) test ./cmd/understudy -run '^TestOutside$$/$(strip $(OUTSIDE))' -v -count=1 -timeout 24h -outside.all \
		-outside.seconds=$(strip $(SECONDS)) -outside.seed=$(strip $(OUTSIDE_SEED))

KAFKA ?= # make test-kafka KAFKA=host:port

.PHONY: test-kafka
test-kafka: ## the Kafka connector's tests against a real broker: KAFKA=host:port
	@[ -n "$(strip $(KAFKA))" ] || { echo "make test-kafka KAFKA=host:port: which broker?"; exit 2; }
	KAFKA=$(strip $(KAFKA)) $(GO) test ./connector/kafka -v -count=1 -timeout 60m

# Needs python3. The answers change only if a query or a stream does.
.PHONY: nexmark-answers
nexmark-answers: build ## compute the golden answers of Nexmark again, by SQLite
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; cd testdata/nexmark; \
	for stream in 10000x1 1000x60; do \
		../../bin/understudy nexmark generate --events 100000 --rate $${stream%x*} --group $${stream#*x} > "$$dir/events.tsv"; \
		python3 answers.py "$$dir/events.tsv" "answers/$$stream"; \
	done
