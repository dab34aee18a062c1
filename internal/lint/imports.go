package lint

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// root is how the tables below name the package at the module's root.
const root = "."

// everything stands for any package of the module.
const everything = "..."

// layer says what the packages in a folder, and below it, may import from this
// module. Packages of one folder may always import each other, except where
// apart is set.
type layer struct {
	dir    string
	may    []string
	apart  bool // each sub-folder stands alone
	reason string
}

// layers is the whole module from top to bottom. Test files are free: they set
// up neighbours, and the compiler rules out circles.
var layers = []layer{
	{dir: "cmd", may: []string{everything},
		reason: "the commands wire everything"},
	{dir: "internal/sim", may: []string{everything},
		reason: "the simulation runs a whole cluster and reaches into every layer"},
	{dir: "internal/bench/plain", may: []string{"internal/nexmark"},
		reason: "what the engine is compared with must not use it"},
	{dir: "internal/bench", may: []string{root, "operator", "connector", "internal/nexmark", "internal/outside", "cluster", "determinant"},
		reason: "the benchmark measures from outside: it runs jobs as users do, and knows of the engine what status shows"},
	{dir: "internal/outside", may: []string{"operator", "connector"},
		reason: "whoever reads output from outside knows where sinks show it, and nothing of the engine"},
	{dir: "internal/nexmark", may: []string{root, "operator", "connector"},
		reason: "the benchmark is a user: it sees what a user sees"},
	{dir: "examples", may: []string{root, "operator", "connector", "determinant"},
		reason: "an example shows what a user's program imports"},
	{dir: root, may: []string{"cluster", "operator", "task", "checkpoint", "determinant", "internal/console", "internal/mutation"},
		reason: "the embedding face starts workers and shows what users write with; a connector's dependency must not reach those who do not use it"},
	{dir: "internal/console", may: []string{"cluster", "transport", "determinant"},
		reason: "what a person sees of a cluster is what its coordinators and its supervisor say"},
	{dir: "cluster", may: []string{
		"raftmeta", "task", "operator", "standby", "checkpoint", "causal", "inflightlog", "transport", "timers", "determinant",
		"internal/mutation"},
		reason: "a worker wires the whole engine, but whoever writes the job picks the connectors"},
	{dir: "task", may: []string{"operator", "checkpoint", "causal", "inflightlog", "timers", "determinant", "internal/mutation"},
		reason: "the step loop gets its links and its orders through interfaces of its own, so that one goroutine can simulate a cluster"},
	{dir: "connector/parquet", may: []string{"connector/file", "operator"},
		reason: "files are found by one kind of pattern, and a changed one is one error, whatever is in them"},
	{dir: "connector/file", may: []string{"operator", "determinant", "internal/mutation"},
		reason: "a connector is written against what users write with; this one is below those that read files of a format of their own"},
	{dir: "connector/connectortest", may: []string{"operator", "causal", "determinant"},
		reason: "the suite plays the engine against a connector: it makes real deltas, and knows no connector"},
	{dir: "connector", may: []string{"operator", "determinant", "internal/mutation"}, apart: true,
		reason: "a connector is written against what users write with, and against no other connector: each brings its own dependency"},
	{dir: "operator", may: []string{"timers", "determinant"},
		reason: "what users write with must not know how it is run"},
	{dir: "raftmeta", may: []string{"standby", "checkpoint", "determinant"},
		reason: "the ledger stores the commands of the pure state machines and decides nothing itself"},
	{dir: "standby", may: []string{"causal", "determinant", "internal/mutation"},
		reason: "recovery is a pure state machine: it compares logs and asks for effects, and performs none"},
	{dir: "checkpoint", may: []string{"determinant", "internal/mutation"},
		reason: "a snapshot is bytes under a name; what they mean is the task's affair"},
	{dir: "causal", may: []string{"determinant", "internal/mutation"},
		reason: "the causal log carries determinants, from whatever layer they come"},
	{dir: "transport", may: []string{"inflightlog", "determinant"},
		reason: "a link carries the batches of an in-flight log as they are; deltas are opaque bytes to it"},
	{dir: "inflightlog", may: []string{"determinant", "internal/mutation"},
		reason: "a channel's log stores sealed batches and knows neither who wrote nor who reads them"},
	{dir: "timers", may: []string{"determinant"},
		reason: "timers are pure: the caller passes the time"},
	{dir: "determinant", may: nil,
		reason: "the bottom: the words that all layers share"},
	{dir: "verify", may: nil,
		reason: "a check that shares code with what it checks shares its faults"},
	{dir: "internal/mutation", may: nil,
		reason: "switches for planted faults sit below all that they break"},
	{dir: "internal/lint", may: nil,
		reason: "the lint reads source; importing it would tie it to a tree that builds"},
}

// module says where a dependency may be imported. One that has no row is some
// connector's client and stays there.
type module struct {
	prefix    string
	dirs      []string
	testsOnly bool // test files anywhere, and the dirs
	reason    string
}

// modules is every dependency that is not a connector's own.
var modules = []module{
	{prefix: "github.com/hashicorp/", dirs: []string{"raftmeta"},
		reason: "only the ledger knows that it is kept by Raft"},
	{prefix: "github.com/cockroachdb/pebble", dirs: []string{"checkpoint", "raftmeta", "verify", "internal/sim"},
		reason: "the store behind a snapshot, a Raft log and a count of keys can be replaced in its one package"},
	{prefix: "github.com/spf13/pflag", dirs: []string{"cmd"},
		reason: "cobra's flags"},
	{prefix: "github.com/spf13/cobra", dirs: []string{"cmd"},
		reason: "flags are the command's; a library takes Options"},
	{prefix: "github.com/stretchr/testify", testsOnly: true,
		reason: "assertions for tests do not belong in the engine"},
	{prefix: "go.uber.org/goleak", testsOnly: true,
		reason: "it looks for leaked goroutines at the end of a test"},
	{prefix: "pgregory.net/rapid", testsOnly: true, dirs: []string{"connector/connectortest"},
		reason: "it draws inputs for properties in tests, and in the suite that connectors call from theirs"},
	{prefix: "github.com/anishathalye/porcupine", testsOnly: true,
		reason: "it checks histories that tests record"},
	{prefix: "github.com/nats-io/nats-server/", testsOnly: true,
		reason: "tests of the connector, and of the command that uses it, start a server in their process"},
	{prefix: "github.com/parquet-go/parquet-go", testsOnly: true, dirs: []string{"connector/parquet"},
		reason: "the connector's; tests of the command that uses it write a file"},
	{prefix: "github.com/twmb/franz-go/pkg/kfake", testsOnly: true,
		reason: "tests of the connector, and of the command that uses it, start a broker in their process"},
	{prefix: "github.com/twmb/franz-go/", testsOnly: true, dirs: []string{"connector/kafka", "internal/outside"},
		reason: "the connector's; who reads its output from outside does so by the system's own client"},
	{prefix: "github.com/nats-io/nats.go", testsOnly: true, dirs: []string{"connector/nats", "internal/outside"},
		reason: "the connector's; who reads its output from outside does so by the system's own client"},
	{prefix: "github.com/jackc/pgx/", testsOnly: true, dirs: []string{"connector/postgres", "internal/outside"},
		reason: "the connector's; who reads its output from outside does so by the system's own client"},
	{prefix: "github.com/vmihailenco/msgpack", dirs: []string{"operator", "standby", "checkpoint", "cluster", "raftmeta", "connector", "cmd", "internal/sim"},
		reason: "reflective coding is for a user's values, commands of the ledger and control messages, never on a record's way"},
	{prefix: "github.com/prometheus/", dirs: []string{root, "cluster", "cmd"},
		reason: "engine packages call hooks; the face turns them into metrics"},
	{prefix: "github.com/cespare/xxhash", dirs: []string{everything},
		reason: "a hash without dependencies or state"},
	{prefix: "github.com/klauspost/compress", dirs: []string{"inflightlog", "checkpoint", "transport", "connector", "verify"},
		reason: "bytes are compressed where they come to rest or cross a wire"},
	{prefix: "golang.org/x/sys", dirs: []string{"inflightlog", "checkpoint", "cluster", "connector", "cmd"},
		reason: "system calls stay where files and processes are"},
	{prefix: "golang.org/x/term", dirs: []string{"cmd"},
		reason: "only a command has a terminal"},
	{prefix: "gonum.org/v1/plot", dirs: []string{"cmd"},
		reason: "pictures are drawn by a command"},
	{prefix: "github.com/schollz/progressbar", dirs: []string{"cmd"},
		reason: "only a command has a terminal"},
	{prefix: "github.com/goccy/go-yaml", dirs: []string{"cmd"},
		reason: "files of settings are the command's; a library takes Options"},
}

// layerOf finds the row whose folder dir lies in.
func layerOf(dir string) *layer {
	for i := range layers {
		if l := &layers[i]; dir == l.dir || l.dir != root && within(dir, l.dir) {
			return l
		}
	}
	return nil
}

func (l *layer) allows(from, to string) bool {
	if l.dir != root && within(to, l.dir) && (!l.apart || within(to, from)) {
		return true
	}
	return slices.ContainsFunc(l.may, func(m string) bool {
		return m == everything || m == to || m != root && within(to, m)
	})
}

func checkImports(tr *tree) []finding {
	var out []finding
	for _, f := range tr.goes {
		if f.isTest() {
			continue
		}
		l := layerOf(f.dir())
		if l == nil {
			msg := fmt.Sprintf("package %s has no row in the table of layers: say what it may import, and why", f.dir())
			out = append(out, finding{rule: "imports", path: f.path, msg: msg})
			continue
		}
		for _, imp := range importsOf(tr, f) {
			to, ok := tr.internal(imp.path)
			if !ok || l.allows(f.dir(), to) {
				continue
			}
			msg := fmt.Sprintf("%s may not import %s, only [%s]: %s", f.dir(), to, strings.Join(l.may, " "), l.reason)
			out = append(out, finding{rule: "imports", path: f.path, line: imp.line, msg: msg})
		}
	}
	return sortFindings(out)
}

func checkModules(tr *tree) []finding {
	var out []finding
	for _, f := range tr.goes {
		for _, imp := range importsOf(tr, f) {
			if _, ok := tr.internal(imp.path); ok || isStandard(imp.path) {
				continue
			}
			if msg := moduleBan(f, imp.path); msg != "" {
				out = append(out, finding{rule: "modules", path: f.path, line: imp.line, msg: msg})
			}
		}
	}
	return sortFindings(out)
}

// moduleBan says why a file may not import a dependency, "" if it may.
func moduleBan(f *goFile, path string) string {
	i := slices.IndexFunc(modules, func(m module) bool { return strings.HasPrefix(path, m.prefix) })
	if i < 0 {
		if within(f.dir(), "connector") {
			return ""
		}
		return path + " has no row in the table of modules: a client belongs in its connector, anything else needs a row and a reason"
	}
	m := modules[i]
	switch {
	case m.testsOnly && (f.isTest() || slices.Contains(m.dirs, f.dir())):
		return ""
	case m.testsOnly:
		return fmt.Sprintf("%s is for test files: %s", path, m.reason)
	}
	for _, d := range m.dirs {
		if d == everything || d == f.dir() || d != root && within(f.dir(), d) {
			return ""
		}
	}
	return fmt.Sprintf("%s may be imported by [%s] only: %s", path, strings.Join(m.dirs, " "), m.reason)
}

type importLine struct {
	path string
	line int
}

func importsOf(tr *tree, f *goFile) []importLine {
	var out []importLine
	for _, spec := range f.syntax.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			out = append(out, importLine{p, tr.line(spec.Pos())})
		}
	}
	return out
}

// internal turns an import path into a folder of this module.
func (tr *tree) internal(path string) (dir string, ok bool) {
	if path == tr.module {
		return root, true
	}
	return strings.CutPrefix(path, tr.module+"/")
}

// isStandard goes by the rule that the first part of any other import path is a
// host name.
func isStandard(path string) bool {
	host, _, _ := strings.Cut(path, "/")
	return !strings.Contains(host, ".")
}
