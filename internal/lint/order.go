package lint

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
)

// listed is the part of `go list -json` that is needed to check types.
type listed struct {
	ImportPath string
	GoFiles    []string
	Export     string // the compiler's export data
	DepOnly    bool
}

// checkOrder finds the choices that only types show: ranges over maps, and
// goroutines started by a method. disk is the folder that tr was loaded from;
// the go command compiles what the packages import and hands over the export
// data.
func checkOrder(tr *tree, disk string) ([]finding, error) {
	patterns := orderPatterns(tr)
	if len(patterns) == 0 {
		return nil, nil
	}
	pkgs, err := goList(disk, patterns)
	if err != nil {
		return nil, err
	}
	exports := map[string]string{}
	for _, p := range pkgs {
		exports[p.ImportPath] = p.Export
	}
	imp := importer.ForCompiler(tr.fset, "gc", func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("%s does not compile", path)
		}
		return os.Open(exports[path])
	})
	var out []finding
	seen := map[*goFile]bool{}
	for _, p := range pkgs {
		dir, ok := tr.internal(p.ImportPath)
		if p.DepOnly || !ok {
			continue
		}
		var files []*goFile
		for _, name := range p.GoFiles {
			if f := tr.find(path.Join(dir, name)); f != nil {
				files = append(files, f)
				seen[f] = true
			}
		}
		out = append(out, orderOf(tr, p.ImportPath, files, imp)...)
	}
	for _, f := range tr.goes {
		if isDeterministic(f) && !seen[f] {
			out = append(out, finding{rule: "order", path: f.path, msg: "is left out of the build that the lint looks at"})
		}
	}
	return sortFindings(out), nil
}

func orderPatterns(tr *tree) []string {
	var out []string
	for _, f := range tr.goes {
		if isDeterministic(f) {
			out = append(out, "./"+f.dir())
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func goList(disk string, patterns []string) ([]listed, error) {
	args := append([]string{"list", "-e", "-export", "-deps", "-json=ImportPath,GoFiles,Export,DepOnly"}, patterns...)
	cmd := exec.Command("go", args...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stderr = disk, &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("lint: go list: %w\n%s", err, stderr.Bytes())
	}
	var pkgs []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs, nil
		} else if err != nil {
			return nil, fmt.Errorf("lint: go list: %w", err)
		}
		pkgs = append(pkgs, p)
	}
}

// orderOf checks one package.
func orderOf(tr *tree, pkg string, files []*goFile, imp types.Importer) []finding {
	if len(files) == 0 {
		return nil
	}
	var first error // the others tend to follow from it
	var syntax []*ast.File
	for _, f := range files {
		syntax = append(syntax, f.syntax)
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: imp, Error: func(err error) { first = cmp.Or(first, err) }}
	_, _ = conf.Check(pkg, tr.fset, syntax, info) // conf.Error has seen every error
	var out []finding
	if first != nil {
		out = append(out, finding{rule: "order", path: files[0].dir(), msg: "cannot be checked: " + first.Error()})
	}
	for _, f := range files {
		out = append(out, orderInFile(tr, f, info)...)
	}
	return out
}

// unordered names what hides a range over a map or a go statement.
var unordered = map[string]string{
	"(*sync.WaitGroup).Go": "starts a goroutine",
	"(*sync.Map).Range":    "visits elements in no order",
	"maps.All":             "yields elements in no order",
	"maps.Keys":            "yields keys in no order",
	"maps.Values":          "yields values in no order",
}

// orderings are the calls that put what is in their first argument in order.
var orderings = []string{"slices.Sorted", "slices.SortedFunc", "slices.SortedStableFunc"}

func orderInFile(tr *tree, f *goFile, info *types.Info) []finding {
	var out []finding
	excused := sortedLines(tr, f)
	report := func(pos token.Pos, fn, msg string) {
		if line := tr.line(pos); !excused[line] {
			out = append(out, finding{"order", f.path, line, fn, msg})
		}
	}
	inOrder := map[ast.Expr]bool{}
	walk(f, func(n ast.Node, fn string) {
		switch n := n.(type) {
		case *ast.CallExpr:
			if slices.Contains(orderings, usedName(info, n.Fun)) {
				if arg, ok := n.Args[0].(*ast.CallExpr); ok {
					inOrder[arg.Fun] = true
				}
			}
		case *ast.SelectorExpr:
			if name := usedName(info, n); unordered[name] != "" && !inOrder[n] {
				report(n.Pos(), fn, name+" "+unordered[name])
			}
		case *ast.RangeStmt:
			if t := info.TypeOf(n.X); t != nil && ranges(t) {
				report(n.Pos(), fn, fmt.Sprintf("range over %s", types.TypeString(t, types.RelativeTo(nil))))
			}
		}
	})
	return out
}

// usedName is the full name of the function that an expression names.
func usedName(info *types.Info, e ast.Expr) string {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	fn, ok := info.Uses[s.Sel].(*types.Func)
	if !ok {
		return ""
	}
	return fn.FullName()
}

// ranges reports whether a value of type t is, or for some type argument may
// be, a map.
func ranges(t types.Type) bool {
	switch u := t.Underlying().(type) {
	case *types.Map:
		return true
	case *types.Interface: // the constraint of a type parameter
		for i := range u.NumEmbeddeds() {
			if ranges(u.EmbeddedType(i)) {
				return true
			}
		}
	case *types.Union:
		for i := range u.Len() {
			if ranges(u.Term(i).Type()) {
				return true
			}
		}
	}
	return false
}
