package file

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"unicode/utf8"

	"github.com/understudy-stream/understudy/determinant"
)

// DeadLetter is a record that was set aside because no attempt to process it came to an end.
type DeadLetter struct {
	Operator string
	Channel  determinant.ChannelID
	Seq      determinant.Seq
	Err      string
	Record   []byte // encoded as it was on the channel; owned by the caller, valid during the call
}

// DeadLetterFile appends dead letters to a file, one JSON object per line:
//
//	{"operator":"parse","channel":3,"seq":118,"error":"parse: no such field","text":"{…}"}
//
// with "base64" in place of "text" where the record is not UTF-8. A letter may appear twice if the process dies between
// setting the record aside and storing that it did; operator, channel and seq name it.
type DeadLetterFile struct {
	path string
	mu   struct {
		sync.Mutex
		file *os.File
	}
}

// DeadLetters gives the dead-letter file at path. It is made when the first letter is put.
func DeadLetters(path string) *DeadLetterFile { return &DeadLetterFile{path: path} }

// Put appends a letter and returns when the operating system has it.
func (d *DeadLetterFile) Put(l DeadLetter) error {
	line := struct {
		Operator string                `json:"operator"`
		Channel  determinant.ChannelID `json:"channel"`
		Seq      determinant.Seq       `json:"seq"`
		Error    string                `json:"error"`
		Text     *string               `json:"text,omitempty"`
		Base64   []byte                `json:"base64,omitempty"`
	}{Operator: l.Operator, Channel: l.Channel, Seq: l.Seq, Error: l.Err}
	if utf8.Valid(l.Record) {
		text := string(l.Record)
		line.Text = &text
	} else {
		line.Base64 = l.Record
	}
	encoded, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("file: dead letter: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.open(); err != nil {
		return err
	}
	if _, err := d.mu.file.Write(append(encoded, '\n')); err != nil {
		d.mu.file.Close()
		d.mu.file = nil // the next Put opens it again and ends the torn line
		return fmt.Errorf("file: dead letter: %w", err)
	}
	return nil
}

// open opens the file and ends a line that an earlier process left torn. The caller holds mu.
func (d *DeadLetterFile) open() error {
	if d.mu.file != nil {
		return nil
	}
	f, err := os.OpenFile(d.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return fmt.Errorf("file: dead letter: %w", err)
	}
	last := []byte{'\n'}
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil && size > 0 {
		_, err = f.ReadAt(last, size-1)
	}
	if err == nil && last[0] != '\n' {
		_, err = f.Write([]byte{'\n'})
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("file: dead letter: %w", err)
	}
	d.mu.file = f
	return nil
}

// Close closes the file. A later Put opens it again.
func (d *DeadLetterFile) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.file == nil {
		return nil
	}
	err := d.mu.file.Close()
	d.mu.file = nil
	return err
}
