package lint

import (
	"slices"
	"strings"
	"testing"
)

// importing is a file of package p that imports the given paths; those that
// start with a dot are of the planted module.
func importing(p string, paths ...string) string {
	var b strings.Builder
	b.WriteString("package " + p + "\n\n")
	for _, path := range paths {
		if rest, ok := strings.CutPrefix(path, "."); ok {
			path = "example.com/m" + rest
		}
		b.WriteString("import _ \"" + path + "\"\n")
	}
	return b.String()
}

func TestImportsPlanted(t *testing.T) {
	wantFindings(t, checkImports(plant(t, files{
		"job.go":                       importing("understudy", "./cluster", "./operator", "./connector/file"),
		"cluster/worker.go":            importing("cluster", "./task", "./raftmeta", "./connector/file", "."),
		"task/loop.go":                 importing("task", "./operator", "./internal/mutation", "./transport"),
		"task/loop_test.go":            importing("task", "./transport"),
		"task/inner/x.go":              importing("inner", "./task", "./timers", "./cluster"),
		"determinant/x.go":             importing("determinant", "fmt", "./timers"),
		"verify/x.go":                  importing("verify", "./determinant", "./verify/inner"),
		"connector/file/x.go":          importing("file", "./operator", "./connector/kafka", "./connector/file/glob"),
		"connector/connectortest/x.go": importing("connectortest", "./operator", "./causal", "./connector/file"),
		"internal/sim/x.go":            importing("sim", ".", "./connector/file", "./raftmeta"),
		"internal/nexmark/x.go":        importing("nexmark", ".", "./connector/file", "./task"),
		"internal/surprise/x.go":       importing("surprise"),
		"cmd/understudy/main.go":       importing("main", ".", "./connector/file", "./verify"),
		"operator/testdata/no.go":      importing("no", "./cluster"),
	})),
		"cluster/worker.go:5: cluster may not import connector/file, only [raftmeta task operator",
		"cluster/worker.go:6: cluster may not import ., only",
		"connector/connectortest/x.go:5: connector/connectortest may not import connector/file, only [operator causal determinant]",
		"connector/file/x.go:4: connector/file may not import connector/kafka, only [operator determinant internal/mutation]: a connector is written",
		"determinant/x.go:4: determinant may not import timers, only []: the bottom",
		"internal/nexmark/x.go:5: internal/nexmark may not import task",
		"internal/surprise/x.go: package internal/surprise has no row in the table of layers",
		"job.go:5: . may not import connector/file",
		"task/inner/x.go:5: task/inner may not import cluster",
		"task/loop.go:5: task may not import transport, only [operator checkpoint causal inflightlog timers determinant internal/mutation]: the step loop",
		"verify/x.go:3: verify may not import determinant, only []: a check that shares code",
	)
}

func TestModulesPlanted(t *testing.T) {
	const (
		raft   = "github.com/hashicorp/raft"
		pebble = "github.com/cockroachdb/pebble/v2"
		cobra  = "github.com/spf13/cobra"
		kgo    = "github.com/twmb/franz-go/pkg/kgo"
		redis  = "github.com/redis/go-redis/v9"
		assert = "github.com/stretchr/testify/assert"
		rapid  = "pgregory.net/rapid"
		prom   = "github.com/prometheus/client_golang/prometheus"
	)
	wantFindings(t, checkModules(plant(t, files{
		"metrics.go":                   importing("understudy", prom, cobra),
		"checkpoint/x.go":              importing("checkpoint", pebble, raft),
		"raftmeta/x.go":                importing("raftmeta", pebble, raft),
		"verify/x.go":                  importing("verify", pebble),
		"task/x.go":                    importing("task", "encoding/binary", "./operator", pebble, prom),
		"task/x_test.go":               importing("task", assert),
		"operator/x.go":                importing("operator", assert),
		"connector/connectortest/x.go": importing("connectortest", rapid),
		"connector/file/x.go":          importing("file", rapid),
		"connector/kafka/x.go":         importing("kafka", kgo),
		"connector/nats/x.go":          importing("nats", kgo),
		"connector/redis/x.go":         importing("redis", redis),
		"internal/outside/x.go":        importing("outside", kgo, redis),
		"cluster/x.go":                 importing("cluster", redis),
		"cmd/understudy/main.go":       importing("main", cobra),
	})),
		"checkpoint/x.go:4: github.com/hashicorp/raft may be imported by [raftmeta] only: only the ledger",
		"cluster/x.go:3: github.com/redis/go-redis/v9 has no row in the table of modules",
		"connector/file/x.go:3: pgregory.net/rapid is for test files",
		"connector/nats/x.go:3: github.com/twmb/franz-go/pkg/kgo is for test files",
		"internal/outside/x.go:4: github.com/redis/go-redis/v9 has no row in the table of modules",
		"metrics.go:4: github.com/spf13/cobra may be imported by [cmd] only",
		"operator/x.go:3: github.com/stretchr/testify/assert is for test files",
		"task/x.go:5: github.com/cockroachdb/pebble/v2 may be imported by [checkpoint raftmeta verify internal/sim] only",
		"task/x.go:6: github.com/prometheus/client_golang/prometheus may be imported by [. cluster cmd] only",
	)
}

// TestLayersPointDownwards checks the table itself: a row names only rows below
// it, or everything.
func TestLayersPointDownwards(t *testing.T) {
	for i, l := range layers {
		for _, m := range l.may {
			if m == everything {
				continue
			}
			below := slices.ContainsFunc(layers[i+1:], func(o layer) bool { return o.dir == m })
			if !below {
				t.Errorf("%s may import %s, which is not below it", l.dir, m)
			}
		}
	}
}
