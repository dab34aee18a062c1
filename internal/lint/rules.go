package lint

import (
	"cmp"
	"fmt"
	"go/ast"
	"slices"
)

// rule is one thing that holds for the whole tree.
type rule struct {
	name  string
	why   string
	check func(*tree) []finding
}

// rules is every rule that looks at source text. [checkOrder], which needs the
// compiler's types, is the one that does not fit in here.
var rules = []rule{
	{"parse", "what cannot be parsed cannot be checked", checkParse},
	{"imports", "imports point downwards only, so that each layer can be read and tested without those above it", checkImports},
	{"modules", "a dependency is paid for by the one package that needs it", checkModules},
	{"choices", "a task replays its choices after a failure; one that is not in its determinant log is made anew, and differently", checkChoices},
	{"sleeps", "a test that sleeps to wait for something is slow when it passes and fails on a busy machine", checkSleeps},
	{"skips", "a test that does not run must say why, or nobody will ever run it again", checkSkips},
	{"length", "what fits on a few screens gets read", checkLength},
	{"names", "a name that says nothing collects what belongs nowhere; use a noun that could be a section title", checkNames},
	{"doc", "a package opens with what it is for, its invariants and who may call it", checkDoc},
	{"traces", "the repository builds anywhere; the paths and registries of one machine are no part of it", checkTraces},
}

const orderWhy = "the order of a map's elements, and of goroutines, is a choice that no log holds; " +
	"sort first, or say on the line why the order does not show: // sorted: <reason>"

// exception excuses the findings of one rule in one place.
type exception struct {
	rule   string
	path   string
	fn     string // "" for the whole file, otherwise "F" or "(*T).F"
	reason string
}

// exceptions is every departure from the rules. Keep it short.
var exceptions = []exception{
	{rule: "choices", path: "operator/wake.go", reason: "joins the Ready channels of a source's readers; it wakes the task and chooses nothing for it"},
}

// finding is one breach of a rule.
type finding struct {
	rule string
	path string
	line int    // 0 if it is about the whole file
	fn   string // the function it stands in, "" if none
	msg  string
}

func (f finding) String() string {
	where := f.path
	if f.line > 0 {
		where = fmt.Sprintf("%s:%d", f.path, f.line)
	}
	if f.fn != "" {
		where += ": in " + f.fn
	}
	return fmt.Sprintf("%s: %s", where, f.msg)
}

func (e exception) covers(f finding) bool {
	return e.rule == f.rule && e.path == f.path && (e.fn == "" || e.fn == f.fn)
}

// excuse splits off the findings that an exception covers and tells which
// exceptions of the rule cover nothing.
func excuse(rule string, all []finding, table []exception) (left []finding, stale []exception) {
	used := make([]bool, len(table))
	for _, f := range all {
		i := slices.IndexFunc(table, func(e exception) bool { return e.covers(f) })
		if i < 0 {
			left = append(left, f)
			continue
		}
		used[i] = true
	}
	for i, e := range table {
		if e.rule == rule && !used[i] {
			stale = append(stale, e)
		}
	}
	return left, stale
}

func sortFindings(all []finding) []finding {
	slices.SortFunc(all, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.line, b.line), cmp.Compare(a.msg, b.msg))
	})
	return slices.Compact(all)
}

func checkParse(tr *tree) []finding {
	var out []finding
	for _, f := range tr.goes {
		if f.err != nil {
			out = append(out, finding{rule: "parse", path: f.path, msg: f.err.Error()})
		}
	}
	return out
}

// walk visits the nodes of a file with the function each stands in.
func walk(f *goFile, visit func(n ast.Node, fn string)) {
	for _, decl := range f.syntax.Decls {
		fn := ""
		if d, ok := decl.(*ast.FuncDecl); ok {
			fn = funcName(d)
		}
		ast.Inspect(decl, func(n ast.Node) bool {
			if n != nil {
				visit(n, fn)
			}
			return true
		})
	}
}

// funcName is "F" for a function, "(T).F" or "(*T).F" for a method.
func funcName(d *ast.FuncDecl) string {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return d.Name.Name
	}
	recv, star := d.Recv.List[0].Type, ""
	if s, ok := recv.(*ast.StarExpr); ok {
		recv, star = s.X, "*"
	}
	switch r := recv.(type) { // leave out type parameters
	case *ast.IndexExpr:
		recv = r.X
	case *ast.IndexListExpr:
		recv = r.X
	}
	name := "?"
	if id, ok := recv.(*ast.Ident); ok {
		name = id.Name
	}
	return "(" + star + name + ")." + d.Name.Name
}
