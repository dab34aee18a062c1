package lint

import (
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// repository is the module's root, seen from this package.
const repository = "../.."

func TestRepository(t *testing.T) {
	tr, err := load(os.DirFS(repository))
	if err != nil {
		t.Fatal(err)
	}
	if tr.find("internal/lint/lint_test.go") == nil {
		t.Fatal("the lint does not see its own tests: it looks at the wrong tree")
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) { demand(t, r.name, r.why, r.check(tr)) })
	}
	t.Run("order", func(t *testing.T) {
		found, err := checkOrder(tr, repository)
		if err != nil {
			t.Fatal(err)
		}
		demand(t, "order", orderWhy, found)
	})
}

// demand fails the test for what no exception covers, and for exceptions that
// cover nothing.
func demand(t *testing.T, rule, why string, found []finding) {
	t.Helper()
	left, stale := excuse(rule, found, exceptions)
	for _, f := range left {
		t.Error(f)
	}
	for _, e := range stale {
		t.Errorf("exception for %s %s (%s) excuses nothing any more: delete it", e.path, e.fn, e.reason)
	}
	if t.Failed() {
		t.Log("why:", why)
	}
}

func TestEveryRuleHasReasons(t *testing.T) {
	for _, r := range rules {
		if r.why == "" {
			t.Errorf("rule %s has no reason", r.name)
		}
	}
	for _, e := range exceptions {
		known := e.rule == "order" || slices.ContainsFunc(rules, func(r rule) bool { return r.name == e.rule })
		if !known || e.path == "" || e.reason == "" {
			t.Errorf("exception %+v needs a known rule, a path and a reason", e)
		}
	}
	for _, l := range layers {
		if l.reason == "" {
			t.Errorf("layer %s has no reason", l.dir)
		}
	}
	for _, m := range modules {
		if m.reason == "" {
			t.Errorf("module %s has no reason", m.prefix)
		}
	}
	for _, b := range bannedNames {
		if b.reason == "" {
			t.Errorf("ban on %s has no reason", b.pkg)
		}
	}
}

func TestExcuse(t *testing.T) {
	whole := finding{rule: "length", path: "a.go", msg: "700 lines"}
	inF := finding{rule: "length", path: "b.go", fn: "F", line: 3, msg: "80 lines"}
	inG := finding{rule: "length", path: "b.go", fn: "G", line: 90, msg: "80 lines"}
	table := []exception{
		{rule: "length", path: "a.go", reason: "a table"},
		{rule: "length", path: "b.go", fn: "F", reason: "a table"},
		{rule: "length", path: "gone.go", reason: "a table"},
		{rule: "names", path: "c.go", reason: "not asked about here"},
	}
	left, stale := excuse("length", []finding{whole, inF, inG}, table)
	if len(left) != 1 || left[0] != inG {
		t.Errorf("left %v, want only %v", left, inG)
	}
	if len(stale) != 1 || stale[0].path != "gone.go" {
		t.Errorf("stale %v, want only gone.go", stale)
	}
}

func TestLoad(t *testing.T) {
	fsys := fstest.MapFS{}
	for path, src := range map[string]string{
		"go.mod":              "module example.com/m\n\ngo 1.26.0\n",
		".gitignore":          "# made by make\nbin/\n/out/\n*.prof\n",
		".git/config":         "ignored",
		"bin/tool":            "ignored",
		"a/bin/tool":          "ignored",
		"a/bin.go":            "package a\n",
		"out/x.txt":           "ignored",
		"a/out/x.txt":         "kept",
		"a/cpu.prof":          "ignored",
		"a/image":             "\x89PNG\x00",
		"a/testdata/bad.go":   "not Go",
		"a/_scratch/worse.go": "not Go",
	} {
		fsys[path] = &fstest.MapFile{Data: []byte(src)}
	}
	tr, err := load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	var texts, goes []string
	for _, f := range tr.texts {
		texts = append(texts, f.path)
	}
	for _, f := range tr.goes {
		goes = append(goes, f.path)
	}
	wantEqual(t, "module", tr.module, "example.com/m")
	wantEqual(t, "texts", strings.Join(texts, " "), ".gitignore a/_scratch/worse.go a/bin.go a/out/x.txt a/testdata/bad.go go.mod")
	wantEqual(t, "goes", strings.Join(goes, " "), "a/bin.go")

	fsys[".gitignore"] = &fstest.MapFile{Data: []byte("!keep\n")}
	if _, err := load(fsys); err == nil {
		t.Error("a pattern of .gitignore that the lint cannot read is not refused")
	}
}

func TestParsePlanted(t *testing.T) {
	wantFindings(t, checkParse(plant(t, files{
		"task/good.go": "package task\n",
		"task/bad.go":  "package task\n\nfunc {\n",
	})), "task/bad.go: task/bad.go:3:6: expected 'IDENT', found '{'")
}

func TestFuncName(t *testing.T) {
	tr := plant(t, files{"a.go": `package a
func F() {}
func (T) A() {}
func (t *T) B() {}
func (t *G[K, V]) C() {}
func (t G[K]) D() {}
`})
	var got []string
	for _, d := range tr.goes[0].syntax.Decls {
		got = append(got, funcName(asFunc(t, d)))
	}
	wantEqual(t, "names", strings.Join(got, " "), "F (T).A (*T).B (*G).C (G).D")
}

// files maps paths to sources.
type files map[string]string

const plantedModule = "module example.com/m\n\ngo 1.26.0\n"

// plant makes a tree of bad, and for contrast of good, sources.
func plant(t *testing.T, src files) *tree {
	t.Helper()
	fsys := fstest.MapFS{"go.mod": &fstest.MapFile{Data: []byte(plantedModule)}}
	for path, s := range src {
		fsys[path] = &fstest.MapFile{Data: []byte(s)}
	}
	tr, err := load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// plantOnDisk is plant for rules that run the go command.
func plantOnDisk(t *testing.T, src files) (*tree, string) {
	t.Helper()
	dir := t.TempDir()
	write := func(path, s string) {
		path = filepath.Join(dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", plantedModule)
	for path, s := range src {
		write(path, s)
	}
	tr, err := load(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	return tr, dir
}

// wantFindings compares what a rule found with the beginning of each line that
// it should print.
func wantFindings(t *testing.T, got []finding, want ...string) {
	t.Helper()
	var lines []string
	for _, f := range got {
		lines = append(lines, f.String())
	}
	all := strings.Join(lines, "\n\t")
	if len(got) != len(want) {
		t.Fatalf("%d findings, want %d:\n\t%s", len(got), len(want), all)
	}
	for i, w := range want {
		if !strings.HasPrefix(lines[i], w) {
			t.Errorf("finding %d does not begin with\n\t%s\nin\n\t%s", i, w, all)
		}
	}
}

func wantEqual(t *testing.T, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s: got %s, want %s", what, g, w)
	}
}

func asFunc(t *testing.T, d ast.Decl) *ast.FuncDecl {
	t.Helper()
	f, ok := d.(*ast.FuncDecl)
	if !ok {
		t.Fatalf("%T is no function", d)
	}
	return f
}
