package file

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A stream is what a part shows under one key, or all that it shows if there are no keys: a sequence of bytes that one or more
// files hold, one after the other. A file's name says at which byte of the stream it begins. So the files alone tell where a
// stream was cut into files, and cutting it is no choice that anybody has to repeat: whoever goes on, goes on in the last file.
//
// Invariant: a file begins where the one before it ends, at the start of a line, and only the last one grows.

// ErrKey is returned for a record of which SinkOptions.Key makes nothing, or a key too long for the name of a folder.
var ErrKey = permanent("file: the record has no key that can name a folder")

const maxFolder = 200 // bytes; names that are made of it have 255 at most

// folderOf names the folder of a key. Two keys never have the same.
func folderOf(key string) (string, error) {
	if key == "" {
		return "%", nil
	}
	var b strings.Builder
	for i := range len(key) {
		c := key[i]
		if plainByte(c) && (c != '.' || i > 0) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	if b.Len() > maxFolder {
		return "", fmt.Errorf("%w: %q takes %d bytes, %d are the most", ErrKey, key, b.Len(), maxFolder)
	}
	return b.String(), nil
}

func plainByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_.=", c) >= 0
}

// isFolder tells whether folderOf could have made it, or it is that of output without keys.
func isFolder(folder string) bool {
	if len(folder) > maxFolder || strings.HasPrefix(folder, ".") {
		return false
	}
	for i := range len(folder) {
		if !plainByte(folder[i]) && folder[i] != '%' {
			return false
		}
	}
	return true
}

// outFile is one file of a stream.
type outFile struct {
	name   string // without folder
	start  uint64 // byte of the stream
	opened time.Time
}

const stampFormat = "20060102T150405Z"

// fileName names the file of a part that begins at a byte of its stream. The parts of the name are left out that say nothing: where no
// file is ever closed, there is one; where age closes none, nobody asks for it.
func (p *part) fileName(start uint64, opened time.Time) string {
	name := p.name
	if p.options.RollBytes > 0 || p.options.RollEvery > 0 || start > 0 {
		name = fmt.Sprintf("%s-%016d", name, start)
	}
	if p.options.RollEvery > 0 {
		name += "-" + opened.UTC().Format(stampFormat)
	}
	return name + ".jsonl"
}

var filePattern = regexp.MustCompile(`^(part-\d{5,})(?:-(\d{16,}))?(?:-(\d{8}T\d{6}Z))?\.jsonl$`)

// parseFileName reads a name that some options made of this part.
func (p *part) parseFileName(name string) (f outFile, ok bool) {
	m := filePattern.FindStringSubmatch(name)
	if m == nil || m[1] != p.name {
		return f, false
	}
	f.name = name
	if m[2] != "" {
		start, err := strconv.ParseUint(m[2], 10, 64)
		if err != nil {
			return f, false
		}
		f.start = start
	}
	if m[3] != "" {
		opened, err := time.Parse(stampFormat, m[3])
		if err != nil {
			return f, false
		}
		f.opened = opened
	}
	return f, true
}

func (p *part) path(folder, name string) string { return filepath.Join(p.dir, folder, name) }

// title names a stream for people.
func (p *part) title(folder string) string { return filepath.Join(p.dir, folder, p.name) }

// files lists the files of a stream in order.
func (p *part) files(folder string) ([]outFile, error) {
	entries, err := os.ReadDir(filepath.Join(p.dir, folder))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("file: %w", err)
	}
	var files []outFile
	for _, e := range entries {
		if f, ok := p.parseFileName(e.Name()); ok {
			files = append(files, f)
		}
	}
	slices.SortFunc(files, func(a, b outFile) int { return compareStarts(a.start, b.start) })
	for i := 1; i < len(files); i++ {
		if files[i].start == files[i-1].start {
			return nil, fmt.Errorf("%w: %s and %s of %s begin at the same byte", ErrCorrupt, files[i-1].name, files[i].name, p.title(folder))
		}
	}
	return files, nil
}

func compareStarts(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// visible gives how many bytes of a stream were ever shown and not cut: what its last file ends with.
func (p *part) visible(folder string) (uint64, error) {
	files, err := p.files(folder)
	if err != nil || len(files) == 0 {
		return 0, err
	}
	last := files[len(files)-1]
	n, err := size(p.path(folder, last.name))
	if err != nil {
		return 0, fmt.Errorf("file: %w", err)
	}
	return last.start + n, nil
}

// readStream gives the bytes from..to of a stream. All of them must be there.
func (p *part) readStream(folder string, from, to uint64) ([]byte, error) {
	data := make([]byte, 0, to-from)
	if from == to {
		return data, nil
	}
	files, err := p.files(folder)
	if err != nil {
		return nil, err
	}
	for i, f := range files {
		if i+1 < len(files) && files[i+1].start <= from {
			continue
		}
		end := to
		if i+1 < len(files) {
			end = min(to, files[i+1].start)
		}
		if from < f.start || end <= from {
			break
		}
		if data, err = p.readFile(data, p.path(folder, f.name), from-f.start, end-from); err != nil {
			return nil, err
		}
		from = end
	}
	if from != to {
		return nil, fmt.Errorf("%w: the files of %s do not hold byte %d", ErrCorrupt, p.title(folder), from)
	}
	return data, nil
}

// readFile appends n bytes from an offset of a file.
func (p *part) readFile(dst []byte, name string, offset, n uint64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	defer f.Close()
	at := len(dst)
	dst = append(dst, make([]byte, n)...)
	if _, err := f.ReadAt(dst[at:], int64(offset)); err == io.EOF {
		return nil, fmt.Errorf("%w: %s is shorter than it was", ErrCorrupt, name)
	} else if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	return dst, nil
}

// lastLineEnd gives the end of the last whole line among the first visible bytes of a stream.
func (p *part) lastLineEnd(folder string, visible uint64) (uint64, error) {
	files, err := p.files(folder)
	if err != nil || len(files) == 0 {
		return 0, err
	}
	const step = 64 << 10
	for start, end := files[len(files)-1].start, visible; ; {
		if end <= start {
			return start, nil // a file begins with a line
		}
		from := max(start, end-min(end, step))
		data, err := p.readStream(folder, from, end)
		if err != nil {
			return 0, err
		}
		for i := len(data) - 1; i >= 0; i-- {
			if data[i] == '\n' {
				return from + uint64(i) + 1, nil
			}
		}
		end = from
	}
}

// cutStream takes away what a stream shows beyond a position: the one place where visible output goes away. Files are taken
// away from the last to the first, so that what is left is a stream at every moment. The caller has the turn.
func (p *part) cutStream(turn uint64, folder string, position uint64) error {
	files, err := p.files(folder)
	if err != nil {
		return err
	}
	for len(files) > 1 && files[len(files)-1].start >= position {
		last := files[len(files)-1]
		gone := filepath.Join(p.pen(turn), "gone")
		if err := p.disk.Rename(p.path(folder, last.name), gone); err != nil {
			return fmt.Errorf("file: %w", err)
		}
		if err := p.disk.Remove(gone); err != nil {
			return fmt.Errorf("file: %w", err)
		}
		files = files[:len(files)-1]
	}
	if len(files) == 0 {
		return nil
	}
	last := files[len(files)-1]
	if p.options.Shared {
		return p.replace(turn, folder, last.name, int64(position-min(position, last.start)))
	}
	f, err := p.disk.Open(p.path(folder, last.name), os.O_RDWR)
	if err == nil {
		err = f.Truncate(int64(position - min(position, last.start)))
		if err == nil && p.options.Sync {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	return nil
}

// replace puts a copy of the first bytes of a file in its place, or of all of it if most is negative. Whoever has the file open keeps
// one that nobody sees. The caller has the turn.
func (p *part) replace(turn uint64, folder, name string, most int64) error {
	from, err := os.Open(p.path(folder, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	defer from.Close()
	temporary := filepath.Join(p.pen(turn), "copy")
	to, err := p.disk.Open(temporary, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err == nil {
		if most < 0 {
			_, err = io.Copy(to, from)
		} else {
			_, err = io.Copy(to, io.LimitReader(from, most))
		}
		if err == nil && p.options.Sync {
			err = to.Sync()
		}
		err = errors.Join(err, to.Close())
	}
	if err == nil {
		err = p.disk.Rename(temporary, p.path(folder, name))
	}
	if err == nil && p.options.Sync {
		err = p.disk.SyncDir(filepath.Join(p.dir, folder))
	}
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	return nil
}
