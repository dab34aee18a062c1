package lint

import (
	"bytes"
	"fmt"
	"go/ast"
	"path"
	"slices"
	"strings"
)

// limits are the lines that a file and a function may have. Generated files
// have none.
var limits = struct{ file, testFile, fn, testFn int }{
	file: 600, testFile: 900, fn: 70, testFn: 120,
}

// emptyNames say nothing about what is inside.
var emptyNames = []string{"common", "helper", "helpers", "misc", "types", "util", "utils"}

func checkLength(tr *tree) []finding {
	var out []finding
	for _, f := range tr.goes {
		if ast.IsGenerated(f.syntax) {
			continue
		}
		maxFile, maxFn := limits.file, limits.fn
		if f.isTest() {
			maxFile, maxFn = limits.testFile, limits.testFn
		}
		if n := bytes.Count(f.src, []byte("\n")); n > maxFile {
			out = append(out, finding{rule: "length", path: f.path, msg: fmt.Sprintf("%d lines, at most %d", n, maxFile)})
		}
		for _, decl := range f.syntax.Decls {
			d, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			start := tr.line(d.Pos())
			if n := tr.line(d.End()) - start + 1; n > maxFn {
				out = append(out, finding{"length", f.path, start, funcName(d), fmt.Sprintf("%d lines, at most %d", n, maxFn)})
			}
		}
	}
	return sortFindings(out)
}

func checkNames(tr *tree) []finding {
	var out []finding
	for _, f := range tr.goes {
		for _, name := range []string{
			strings.TrimSuffix(strings.TrimSuffix(path.Base(f.path), ".go"), "_test"),
			path.Base(f.dir()),
			strings.TrimSuffix(f.syntax.Name.Name, "_test"),
		} {
			if slices.Contains(emptyNames, strings.ToLower(name)) {
				out = append(out, finding{rule: "names", path: f.path, msg: fmt.Sprintf("the name %q says nothing", name)})
			}
		}
	}
	return sortFindings(out)
}

// checkDoc wants a package comment in doc.go, and in no other file, where it
// would be pasted behind the first one.
func checkDoc(tr *tree) []finding {
	var out []finding
	documented := map[string]bool{}
	for _, f := range tr.goes {
		if f.isTest() || f.syntax.Doc == nil {
			continue
		}
		if path.Base(f.path) == "doc.go" {
			documented[f.dir()] = true
			continue
		}
		out = append(out, finding{rule: "doc", path: f.path, msg: "has a package comment; it belongs in doc.go"})
	}
	for _, f := range tr.goes {
		if !f.isTest() && !documented[f.dir()] {
			out = append(out, finding{rule: "doc", path: f.dir(), msg: "has no doc.go with a package comment"})
		}
	}
	return sortFindings(out)
}
