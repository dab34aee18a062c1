package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Glob lists the files that match any of the patterns, sorted by path, each once, as Lines does. A pattern that matches none is
// ErrNoMatch.
func Glob(ctx context.Context, globs ...string) ([]string, error) {
	return expandAll(ctx, globs, false)
}

// expandAll lists the files that match any of the patterns, sorted, each once. A pattern that matches none is an error unless none is
// to be had yet.
func expandAll(ctx context.Context, globs []string, yet bool) ([]string, error) {
	if len(globs) == 0 {
		return nil, fmt.Errorf("%w: no pattern was given", ErrNoMatch)
	}
	var files []string
	for _, glob := range globs {
		g := globber{ctx: ctx}
		if err := g.expand(glob); err != nil {
			return nil, err
		}
		if len(g.files) == 0 && !yet {
			if info, err := os.Stat(glob); err == nil && info.IsDir() {
				return nil, fmt.Errorf("%w: %s is a directory; its files are %s", ErrNoMatch, glob, filepath.Join(glob, "*"))
			}
			return nil, fmt.Errorf("%w: %s", ErrNoMatch, glob)
		}
		files = append(files, g.files...)
	}
	slices.Sort(files)
	return slices.Compact(files), nil
}

type globber struct {
	ctx   context.Context
	files []string
}

func (g *globber) expand(glob string) error {
	if glob == "" {
		return nil
	}
	pattern := filepath.ToSlash(filepath.Clean(glob))
	root := ""
	if strings.HasPrefix(pattern, "/") {
		root, pattern = "/", strings.TrimLeft(pattern, "/")
	}
	segments := strings.Split(pattern, "/")
	for _, s := range segments {
		if _, err := path.Match(s, ""); err != nil {
			return fmt.Errorf("file: pattern %q: %w", glob, err)
		}
	}
	return g.walk(root, segments)
}

// walk matches the segments below dir, which is a directory or "" for the working directory.
func (g *globber) walk(dir string, segments []string) error {
	if err := g.ctx.Err(); err != nil {
		return err
	}
	segment, rest := segments[0], segments[1:]
	if segment == "**" {
		return g.descend(dir, rest)
	}
	if !strings.ContainsAny(segment, `*?[\`) {
		return g.visit(filepath.Join(dir, segment), rest)
	}
	entries, err := list(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if hidden(e.Name(), segment) {
			continue
		}
		if ok, err := path.Match(segment, e.Name()); err != nil || !ok {
			continue // the pattern itself was checked before
		}
		if err := g.visit(filepath.Join(dir, e.Name()), rest); err != nil {
			return err
		}
	}
	return nil
}

// descend matches what follows ** in dir and in every directory below it.
func (g *globber) descend(dir string, rest []string) error {
	if len(rest) == 0 {
		rest = []string{"*"}
	}
	if rest[0] == "**" {
		return g.descend(dir, rest[1:])
	}
	if err := g.walk(dir, rest); err != nil {
		return err
	}
	entries, err := list(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() && !hidden(e.Name(), "") {
			if err := g.descend(filepath.Join(dir, e.Name()), rest); err != nil {
				return err
			}
		}
	}
	return nil
}

// visit goes on below name if segments are left, and otherwise takes it if it is no directory.
func (g *globber) visit(name string, rest []string) error {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && len(rest) > 0 && !info.IsDir():
		return nil
	case err != nil:
		return fmt.Errorf("file: %w", err)
	case len(rest) > 0:
		return g.walk(name, rest)
	case info.IsDir():
		return nil
	}
	g.files = append(g.files, name)
	return nil
}

func hidden(name, pattern string) bool {
	return strings.HasPrefix(name, ".") && !strings.HasPrefix(pattern, ".")
}

func list(dir string) ([]os.DirEntry, error) {
	if dir == "" {
		dir = "."
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	return entries, nil
}
