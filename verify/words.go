package verify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
)

const (
	wordBuffer  = 256 << 10 // bytes of text read at once
	wordBytes   = 96        // what a counted word costs in memory, besides its letters
	wordsShare  = 8         // the words counted in memory may take this part of the budget
	longestWord = 1 << 20   // a longer run of letters is not text
)

// readExpected adds to the first pass how many values each key must have.
func (c *runningCheck) readExpected() error {
	if len(c.opt.Expect.Paths) > 0 {
		if err := c.readExpectFiles(); err != nil {
			return err
		}
	}
	if len(c.opt.Words.Paths) == 0 {
		return nil
	}
	files, err := expand(c.opt.Words.Paths)
	if err != nil {
		return err
	}
	c.m.phase("counting words", sizes(files))
	w := wordCounter{m: c.m, counts: map[string]*uint64{}, room: int(c.opt.Memory / wordsShare), emit: c.expect}
	for _, path := range files {
		if err := w.file(path); err != nil {
			return err
		}
	}
	return w.flush()
}

// expect says that a key must have n more values.
func (c *runningCheck) expect(key []byte, n uint64) error {
	var scratch [16]byte
	return c.byPlace.Add(key, binary.AppendUvarint(append(scratch[:0], runningExpected), n))
}

func (c *runningCheck) readExpectFiles() error {
	files, err := expand(c.opt.Expect.Paths)
	if err != nil {
		return err
	}
	sel := c.opt.Expect
	uniq := sel.Format.of(files[0]) == Lines
	if uniq {
		sel.Fields = []string{"@line"}
	}
	s, err := newScanner(sel, sideInput, c.m, c.torn)
	if err != nil {
		return err
	}
	_, err = s.each("reading expected counts", func(r *row) error {
		if !uniq {
			return c.expectPair(r)
		}
		text := bytes.TrimSpace(r.text)
		if len(text) == 0 {
			return nil
		}
		count, key, ok := bytes.Cut(text, []byte(" "))
		n, err := strconv.ParseUint(string(count), 10, 63)
		if err != nil || !ok {
			return r.fail("%q is not a count and a key", shorten(string(text)))
		}
		return c.expect(boundKey(bytes.Clone(key), 0), n)
	})
	return err
}

func (c *runningCheck) expectPair(r *row) error {
	key, n, err := c.pair(r)
	if err != nil {
		return err
	}
	if n < 0 {
		return r.fail("%d values are expected", n)
	}
	return c.expect(key, uint64(n))
}

// wordCounter counts words, in bounded memory: a word may be emitted in several parts.
type wordCounter struct {
	m      *meter
	counts map[string]*uint64
	room   int // bytes left for counts
	used   int
	emit   func(word []byte, n uint64) error
	word   []byte // a word that has begun
}

// letter maps the bytes of words to lower case and all others to 0.
var letter = func() (l [256]byte) {
	for c := '0'; c <= '9'; c++ {
		l[c] = byte(c)
	}
	for c := 'a'; c <= 'z'; c++ {
		l[c], l[c-'a'+'A'] = byte(c), byte(c)
	}
	return l
}()

func (w *wordCounter) file(path string) error {
	f, err := openFile(path, w.m)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, wordBuffer)
	for {
		n, err := f.Read(buf)
		if scanErr := w.scan(buf[:n]); scanErr != nil {
			return fmt.Errorf("%s: %w", path, scanErr)
		}
		if errors.Is(err, io.EOF) {
			return w.end() // a file's last word ends with the file
		}
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrUnusable, path, err)
		}
	}
}

func (w *wordCounter) scan(text []byte) error {
	for _, b := range text {
		if l := letter[b]; l != 0 {
			w.word = append(w.word, l)
			continue
		}
		if len(w.word) > 0 {
			if err := w.end(); err != nil {
				return err
			}
		}
	}
	if len(w.word) > longestWord {
		return fmt.Errorf("%w: a word is longer than %d bytes", ErrUnusable, longestWord)
	}
	return nil
}

// end counts the word that has begun, if one has.
func (w *wordCounter) end() error {
	if len(w.word) == 0 {
		return nil
	}
	w.word = boundKey(w.word, 0)
	if n := w.counts[string(w.word)]; n != nil {
		*n++
	} else {
		n := uint64(1)
		w.counts[string(w.word)] = &n
		w.used += len(w.word) + wordBytes
	}
	w.word = w.word[:0]
	if w.used > w.room {
		if err := w.flush(); err != nil {
			return err
		}
	}
	return w.m.tick()
}

// flush emits what was counted so far.
func (w *wordCounter) flush() error {
	for word, n := range w.counts {
		if err := w.emit([]byte(word), *n); err != nil {
			return err
		}
	}
	clear(w.counts)
	w.used = 0
	return nil
}
