package lint

import (
	"fmt"
	"go/ast"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// guides are the pages that name files and functions.
var guides = []string{"DESIGN.md", "README.md"}

// reference matches `file.go`, `file.go:Name` and `file.go:Type.Name` in a guide.
var reference = regexp.MustCompile("`((?:[a-z_0-9-]+/)*[a-z_0-9-]+\\.(?:go|md))(?::([A-Za-z_0-9.]+))?`")

// TestDesignNamesExist keeps the walks through the code true: what a guide names must be there.
func TestDesignNamesExist(t *testing.T) {
	tr, err := load(os.DirFS(repository))
	if err != nil {
		t.Fatal(err)
	}
	for _, guide := range guides {
		for _, f := range checkGuide(tr, guide) {
			t.Error(f)
		}
	}
}

func TestGuidePlanted(t *testing.T) {
	wantFindings(t, checkGuide(plant(t, files{
		"a/b.go":  "package a\n\ntype T struct{ field int }\ntype I interface{ Do() }\nfunc (t *T) M() {}\nfunc F() {}\nvar v int\n",
		"good.md": "`a/b.go` `a/b.go:F` `a/b.go:T.M` `a/b.go:T` `a/b.go:v` `a/b.go:T.field` `a/b.go:I.Do` `good.md` `F`\n",
	}), "good.md"))
	wantFindings(t, checkGuide(plant(t, files{
		"a/b.go": "package a\n\ntype T int\nfunc (t *T) M() {}\nfunc F() {}\n",
		"bad.md": "`a/c.go`\n`a/b.go:M` and `a/b.go:T.F`\n",
	}), "bad.md"),
		"bad.md:1: there is no a/c.go", "bad.md:2: a/b.go declares no M", "bad.md:2: a/b.go declares no T.F")
	wantFindings(t, checkGuide(plant(t, nil), "gone.md"), "gone.md: there is no such page")
}

// TestReadmeExampleBuilds compiles the program that the README shows.
func TestReadmeExampleBuilds(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(repository, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```go\n")
	program, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("README.md shows no program")
	}
	dir := t.TempDir()
	name := filepath.Join(dir, "main.go")
	if err := os.WriteFile(name, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "example"), name)
	build.Dir = repository // where its imports are looked up
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// checkGuide finds the references of a page that lead nowhere.
func checkGuide(tr *tree, guide string) []finding {
	i := slices.IndexFunc(tr.texts, func(x text) bool { return x.path == guide })
	if i < 0 {
		return []finding{{rule: "guide", path: guide, msg: "there is no such page"}}
	}
	var out []finding
	n := 0
	for line := range strings.Lines(string(tr.texts[i].src)) {
		n++
		for _, m := range reference.FindAllStringSubmatch(line, -1) {
			file, name := m[1], m[2]
			if !slices.ContainsFunc(tr.texts, func(x text) bool { return x.path == file }) {
				out = append(out, finding{rule: "guide", path: guide, line: n, msg: "there is no " + file})
			} else if f := tr.find(file); name != "" && (f == nil || !slices.Contains(declared(f), name)) {
				out = append(out, finding{rule: "guide", path: guide, line: n, msg: fmt.Sprintf("%s declares no %s", file, name)})
			}
		}
	}
	return out
}

// declared lists what a file declares: F, T, T.Method, T.field.
func declared(f *goFile) []string {
	var names []string
	for _, decl := range f.syntax.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			names = append(names, strings.NewReplacer("(", "", "*", "", ")", "").Replace(funcName(d)))
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				names = append(names, specNames(spec)...)
			}
		}
	}
	return names
}

func specNames(spec ast.Spec) []string {
	var names []string
	switch s := spec.(type) {
	case *ast.ValueSpec:
		for _, id := range s.Names {
			names = append(names, id.Name)
		}
	case *ast.TypeSpec:
		names = append(names, s.Name.Name)
		var members *ast.FieldList
		switch u := s.Type.(type) {
		case *ast.StructType:
			members = u.Fields
		case *ast.InterfaceType:
			members = u.Methods
		}
		if members == nil {
			break
		}
		for _, field := range members.List {
			for _, id := range field.Names {
				names = append(names, s.Name.Name+"."+id.Name)
			}
		}
	}
	return names
}
