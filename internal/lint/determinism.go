package lint

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// deterministic names the packages that run inside a step or replay one. Their
// choices come from the caller or the log. Test files may do as they like.
var deterministic = []string{"task", "operator", "timers", "causal", "standby"}

// bannedName says which names of a package would make a choice that no log
// holds: those in deny, or all but those in allow.
type bannedName struct {
	pkg    string
	deny   []string
	allow  []string
	reason string
}

const (
	clockReason  = "the time is a determinant: take it from the caller or the context"
	randomReason = "the seed is a determinant: draw from a generator that was given one"
)

var bannedNames = []bannedName{
	{pkg: "time", reason: clockReason, deny: []string{
		"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "NewTimer", "NewTicker", "Tick"}},
	{pkg: "math/rand", reason: randomReason, allow: []string{
		"New", "NewSource", "NewZipf", "Rand", "Source", "Source64", "Zipf"}},
	{pkg: "math/rand/v2", reason: randomReason, allow: []string{
		"New", "NewPCG", "NewChaCha8", "NewZipf", "Rand", "Source", "PCG", "ChaCha8", "Zipf"}},
	{pkg: "crypto/rand", reason: randomReason},
	{pkg: "hash/maphash", reason: "its seed differs in every process"},
}

func (b *bannedName) bans(name string) bool {
	if b.deny != nil {
		return slices.Contains(b.deny, name)
	}
	return !slices.Contains(b.allow, name)
}

func isDeterministic(f *goFile) bool { return !f.isTest() && within(f.dir(), deterministic...) }

// checkChoices finds the choices that show in the syntax alone.
func checkChoices(tr *tree) []finding {
	var out []finding
	for _, f := range tr.goes {
		if isDeterministic(f) {
			out = append(out, choicesOf(tr, f)...)
		}
	}
	return sortFindings(out)
}

func choicesOf(tr *tree, f *goFile) []finding {
	var out []finding
	report := func(pos token.Pos, fn, format string, args ...any) {
		out = append(out, finding{"choices", f.path, tr.line(pos), fn, fmt.Sprintf(format, args...)})
	}
	bans := map[string]*bannedName{} // by the name that the file knows the package under
	for i := range bannedNames {
		b := &bannedNames[i]
		name, pos, ok := importedAs(f, b.pkg)
		if ok && name == "." {
			report(pos, "", "%s is imported without a name, which hides its uses: %s", b.pkg, b.reason)
		}
		if ok {
			bans[name] = b
		}
	}
	walk(f, func(n ast.Node, fn string) {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if b := bans[packageName(n)]; b != nil && b.bans(n.Sel.Name) {
				report(n.Pos(), fn, "%s.%s: %s", b.pkg, n.Sel.Name, b.reason)
			}
		case *ast.GoStmt:
			report(n.Pos(), fn, "go statement: one goroutine owns a task, and the scheduler's choice is in no log")
		case *ast.SelectStmt:
			if c := channelCases(n); c > 1 {
				report(n.Pos(), fn, "select over %d channels: when several are ready the runtime picks one at random", c)
			}
		}
	})
	return out
}

// channelCases counts the cases of a select, default aside.
func channelCases(s *ast.SelectStmt) int {
	n := 0
	for _, c := range s.Body.List {
		if c.(*ast.CommClause).Comm != nil {
			n++
		}
	}
	return n
}

// importedAs gives the name under which a file knows a package.
func importedAs(f *goFile, pkg string) (name string, pos token.Pos, ok bool) {
	for _, spec := range f.syntax.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil || p != pkg {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name, spec.Pos(), spec.Name.Name != "_"
		}
		return defaultName(pkg), spec.Pos(), true
	}
	return "", token.NoPos, false
}

// defaultName is the last part of an import path, a version left out.
func defaultName(pkg string) string {
	if base := path.Base(pkg); !majorVersion.MatchString(base) {
		return base
	}
	return path.Base(path.Dir(pkg))
}

var majorVersion = regexp.MustCompile(`^v[0-9]+$`)

// packageName is X in X.Sel when X can only be the name of an import.
func packageName(s *ast.SelectorExpr) string {
	if id, ok := s.X.(*ast.Ident); ok && id.Obj == nil {
		return id.Name
	}
	return ""
}

// sortedNote is the comment that excuses a range over a map. It stands on the
// line, or alone on the lines above it, and gives a reason.
var sortedNote = regexp.MustCompile(`^//(\s*sorted:|lint:sorted)\s*\S`)

// sortedLines gives the lines of a file that a note excuses.
func sortedLines(tr *tree, f *goFile) map[int]bool {
	lines := bytes.Split(f.src, []byte("\n"))
	excused := map[int]bool{}
	for _, group := range f.syntax.Comments {
		if !slices.ContainsFunc(group.List, func(c *ast.Comment) bool { return sortedNote.MatchString(c.Text) }) {
			continue
		}
		start := tr.fset.Position(group.Pos())
		if strings.TrimSpace(string(lines[start.Line-1][:start.Column-1])) == "" {
			excused[tr.line(group.End())+1] = true
			continue
		}
		excused[start.Line] = true
	}
	return excused
}
