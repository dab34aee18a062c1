package verify

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// dataExtensions are the files that a folder stands for, each also with .gz behind it.
var dataExtensions = []string{".jsonl", ".ndjson", ".json", ".csv", ".txt"}

// expand turns globs, files and folders into files, sorted by path and each once. Hidden files and folders are only found
// by patterns that name the dot.
func expand(patterns []string) ([]string, error) {
	if len(patterns) == 0 {
		return nil, fmt.Errorf("%w: no file named", ErrUnusable)
	}
	var files []string
	for _, pattern := range patterns {
		found, err := expandOne(pattern)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("%w: %q matches no file", ErrUnusable, pattern)
		}
		files = append(files, found...)
	}
	slices.Sort(files)
	return slices.Compact(files), nil
}

func expandOne(pattern string) ([]string, error) {
	// A file whose very name has glob characters in it is meant literally.
	if _, err := os.Lstat(pattern); err == nil {
		return expandPath(filepath.Clean(pattern))
	}
	files, err := glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("%w: glob %q: %w", ErrUnusable, pattern, err)
	}
	return files, nil
}

// glob returns the files that a pattern matches, in no order. It is that of filepath.Match for each part of the path; the
// part ** stands for any number of folders, also none. Wildcards do not match hidden names, and ** does not follow links.
func glob(pattern string) ([]string, error) {
	pattern = filepath.ToSlash(filepath.Clean(pattern))
	found := []string{""}
	if strings.HasPrefix(pattern, "/") {
		found, pattern = []string{"/"}, strings.TrimLeft(pattern, "/")
	}
	parts := strings.Split(pattern, "/")
	if parts[len(parts)-1] == "**" {
		parts = append(parts, "*")
	}
	for _, part := range parts {
		var next []string
		for _, dir := range found {
			names, err := globPart(dir, part)
			if err != nil {
				return nil, err
			}
			next = append(next, names...)
		}
		slices.Sort(next)
		found = slices.Compact(next) // ** may reach a folder in several ways
	}
	return slices.DeleteFunc(found, func(name string) bool {
		info, err := os.Stat(name)
		return err != nil || info.IsDir()
	}), nil
}

// globPart returns what one part of a pattern matches in a folder. What is no folder has nothing in it.
func globPart(dir, part string) ([]string, error) {
	if part == "**" {
		return foldersBelow(dir)
	}
	if !strings.ContainsAny(part, `*?[\`) {
		name := filepath.Join(dir, part)
		if _, err := os.Stat(name); err != nil {
			return nil, nil
		}
		return []string{name}, nil
	}
	if _, err := filepath.Match(part, ""); err != nil {
		return nil, err
	}
	if info, err := os.Stat(cmp.Or(dir, ".")); err == nil && !info.IsDir() {
		return nil, nil
	}
	entries, err := os.ReadDir(cmp.Or(dir, "."))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		matches, _ := filepath.Match(part, e.Name()) // the pattern was checked above
		if matches && (!hidden(e.Name()) || strings.HasPrefix(part, ".")) {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	return names, nil
}

// foldersBelow returns a folder and all below it that are not hidden.
func foldersBelow(dir string) ([]string, error) {
	folders := []string{dir}
	err := filepath.WalkDir(cmp.Or(dir, "."), func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path == cmp.Or(dir, "."):
			return nil
		case !entry.IsDir():
			return nil
		case hidden(entry.Name()):
			return fs.SkipDir
		}
		folders = append(folders, path)
		return nil
	})
	return folders, err
}

func hidden(name string) bool {
	return strings.HasPrefix(name, ".") && name != "." && name != ".."
}

// expandPath returns the file itself, or the data files below a folder.
func expandPath(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var files []string
	err = filepath.WalkDir(path, func(p string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case p != path && hidden(entry.Name()):
			if entry.IsDir() {
				return fs.SkipDir
			}
		case !entry.IsDir() && isData(p):
			files = append(files, p)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	return files, nil
}

func isData(path string) bool {
	return slices.Contains(dataExtensions, dataExtension(path))
}

// dataExtension is the extension of what is inside a file: that in front of .gz, if there is one.
func dataExtension(path string) string {
	return strings.ToLower(filepath.Ext(strings.TrimSuffix(path, ".gz")))
}

// sizes adds up the sizes of files on disk, for progress.
func sizes(files []string) int64 {
	var total int64
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
	}
	return total
}

// openFile opens a file for reading its contents, unpacked if its name ends in .gz. Bytes read from disk are added to
// progress.
func openFile(path string, m *meter) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	counted := &countedFile{File: f, m: m}
	if !strings.HasSuffix(path, ".gz") {
		return counted, nil
	}
	z, err := gzip.NewReader(counted)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s: %w", ErrUnusable, path, err)
	}
	return &gzipFile{Reader: z, file: f}, nil
}

type countedFile struct {
	*os.File
	m *meter
}

func (c *countedFile) Read(p []byte) (int, error) {
	n, err := c.File.Read(p)
	c.m.now.Bytes += int64(n)
	return n, err
}

type gzipFile struct {
	*gzip.Reader
	file *os.File
}

func (g *gzipFile) Close() error {
	return errors.Join(g.Reader.Close(), g.file.Close())
}
