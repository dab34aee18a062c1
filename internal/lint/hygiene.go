package lint

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"strconv"
	"strings"
)

func checkSleeps(tr *tree) []finding {
	var out []finding
	for _, f := range tr.goes {
		name, _, ok := importedAs(f, "time")
		if !f.isTest() || !ok {
			continue
		}
		walk(f, func(n ast.Node, fn string) {
			s, ok := n.(*ast.SelectorExpr)
			if ok && packageName(s) == name && s.Sel.Name == "Sleep" {
				out = append(out, finding{"sleeps", f.path, tr.line(n.Pos()), fn, "time.Sleep in a test: wait for what you are waiting for"})
			}
		})
	}
	return sortFindings(out)
}

func checkSkips(tr *tree) []finding {
	var out []finding
	for _, f := range tr.goes {
		if !f.isTest() {
			continue
		}
		walk(f, func(n ast.Node, fn string) {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return
			}
			if s, ok := call.Fun.(*ast.SelectorExpr); ok && isTestingValue(s.X) && skipsInSilence(s.Sel.Name, call.Args) {
				out = append(out, finding{"skips", f.path, tr.line(n.Pos()), fn, "skips without saying why"})
			}
		})
	}
	return sortFindings(out)
}

// skipsInSilence reports whether a call of a method of testing.TB skips the
// test with no words of explanation.
func skipsInSilence(method string, args []ast.Expr) bool {
	switch method {
	case "SkipNow":
		return true
	case "Skip", "Skipf":
		if len(args) == 0 {
			return true
		}
		lit, ok := args[0].(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return false
		}
		s, err := strconv.Unquote(lit.Value)
		return err == nil && len(strings.Fields(s)) < 2
	}
	return false
}

// isTestingValue reports whether an expression is a parameter of a type of
// package testing.
func isTestingValue(e ast.Expr) bool {
	id, ok := e.(*ast.Ident)
	if !ok || id.Obj == nil {
		return false
	}
	field, ok := id.Obj.Decl.(*ast.Field)
	if !ok {
		return false
	}
	t := field.Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	s, ok := t.(*ast.SelectorExpr)
	return ok && packageName(s) == "testing"
}

// trace is text that only makes sense on the machine where it was written.
type trace struct {
	pattern *regexp.Regexp
	reason  string
}

// machineTraces is put together from pieces, so that this file does not find
// itself.
var machineTraces = []trace{
	{folder("work"), "a folder of one machine"},
	{folder("root"), "a home folder"},
	{folder("home", `[a-z0-9_-]+`), "a home folder"},
	{regexp.MustCompile(`\.\./shared` + `/`), "a folder beside one checkout"},
	{host("proxy", "golang", "org"), "a registry"},
	{host("sum", "golang", "org"), "a registry"},
	{host("pypi", "org"), "a registry"},
	{host("files", "pythonhosted", "org"), "a registry"},
	{host("registry", "npmjs", "org"), "a registry"},
	{host("index", "crates", "io"), "a registry"},
	{host("deb", "debian", "org"), "a registry"},
	{host("security", "debian", "org"), "a registry"},
}

// folder matches an absolute path that starts with the given parts.
func folder(parts ...string) *regexp.Regexp {
	return regexp.MustCompile(`(^|[^\w.>})*-])/` + strings.Join(parts, "/") + "/")
}

func host(labels ...string) *regexp.Regexp {
	return regexp.MustCompile(`(?i)(^|[^\w.-])` + strings.Join(labels, `\.`) + `\b`)
}

func checkTraces(tr *tree) []finding {
	var out []finding
	for _, t := range tr.texts {
		if t.path == "go.sum" {
			continue
		}
		n := 0
		for line := range strings.Lines(string(t.src)) {
			n++
			for _, m := range machineTraces {
				if s := m.pattern.FindString(line); s != "" {
					msg := fmt.Sprintf("%q: %s", strings.TrimSpace(s), m.reason)
					out = append(out, finding{rule: "traces", path: t.path, line: n, msg: msg})
				}
			}
		}
	}
	return sortFindings(out)
}
