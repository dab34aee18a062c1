package lint

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"strings"
)

// tree is the source of one module as it would be committed.
type tree struct {
	module string
	fset   *token.FileSet
	texts  []text
	goes   []*goFile
}

// text is a file that is not binary.
type text struct {
	path string // slash-separated, from the module's root
	src  []byte
}

// goFile is a file that the go command would look at: testdata and directories
// that start with a dot or an underscore are not among them.
type goFile struct {
	text
	syntax *ast.File // as far as it could be parsed
	err    error     // why it could not be parsed to the end
}

func (f *goFile) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// dir is the package's folder, "." at the root.
func (f *goFile) dir() string { return path.Dir(f.path) }

// within reports whether dir is one of the folders or lies below one.
func within(dir string, folders ...string) bool {
	for _, f := range folders {
		if dir == f || strings.HasPrefix(dir, f+"/") {
			return true
		}
	}
	return false
}

// load reads a module. What .gitignore names is left out.
func load(fsys fs.FS) (*tree, error) {
	gomod, err := fs.ReadFile(fsys, "go.mod")
	if err != nil {
		return nil, fmt.Errorf("lint: %w", err)
	}
	tr := &tree{module: modulePath(gomod), fset: token.NewFileSet()}
	ignored, err := loadIgnored(fsys)
	if err != nil {
		return nil, err
	}
	err = fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Name() == ".git" || ignored.match(p, d.IsDir()):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case !d.Type().IsRegular():
			return nil
		}
		src, err := fs.ReadFile(fsys, p)
		if err != nil {
			return err
		}
		tr.add(text{path: p, src: src})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("lint: %w", err)
	}
	return tr, nil
}

func (tr *tree) add(t text) {
	if bytes.IndexByte(t.src, 0) >= 0 {
		return
	}
	tr.texts = append(tr.texts, t)
	if !strings.HasSuffix(t.path, ".go") || !seenByGo(path.Dir(t.path)) {
		return
	}
	f := &goFile{text: t}
	f.syntax, f.err = parser.ParseFile(tr.fset, t.path, t.src, parser.ParseComments)
	tr.goes = append(tr.goes, f)
}

func (tr *tree) line(pos token.Pos) int { return tr.fset.Position(pos).Line }

func (tr *tree) find(path string) *goFile {
	for _, f := range tr.goes {
		if f.path == path {
			return f
		}
	}
	return nil
}

func seenByGo(dir string) bool {
	if dir == "." {
		return true
	}
	for name := range strings.SplitSeq(dir, "/") {
		if name == "testdata" || name == "vendor" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
			return false
		}
	}
	return true
}

func modulePath(gomod []byte) string {
	for line := range strings.Lines(string(gomod)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "module" {
			return fields[1]
		}
	}
	return ""
}

// ignorePattern is one line of .gitignore, in the small part of its language
// that this repository uses: no negation, no "**", no slash in the middle.
type ignorePattern struct {
	glob     string
	rooted   bool // only at the module's root
	dirsOnly bool
}

type ignoreList []ignorePattern

func loadIgnored(fsys fs.FS) (ignoreList, error) {
	src, err := fs.ReadFile(fsys, ".gitignore")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("lint: %w", err)
	}
	var list ignoreList
	for s := bufio.NewScanner(bytes.NewReader(src)); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		p := ignorePattern{rooted: strings.HasPrefix(line, "/"), dirsOnly: strings.HasSuffix(line, "/")}
		p.glob = strings.Trim(line, "/")
		if strings.ContainsAny(p.glob, "/!") || strings.Contains(p.glob, "**") {
			return nil, fmt.Errorf("lint: .gitignore: %q is beyond the patterns that the lint reads", line)
		}
		list = append(list, p)
	}
	return list, nil
}

func (l ignoreList) match(p string, isDir bool) bool {
	for _, i := range l {
		if i.dirsOnly && !isDir || i.rooted && path.Dir(p) != "." {
			continue
		}
		if ok, _ := path.Match(i.glob, path.Base(p)); ok {
			return true
		}
	}
	return false
}
