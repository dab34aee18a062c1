package cluster

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
)

// BuildID names the program that runs: a hash of its build id, or of its file if it has none, and the architecture. Choices are replayed by
// the same code that made them, so all processes of a job must have the same. Empty if the program's file cannot be read.
var BuildID = sync.OnceValue(func() string {
	path, err := os.Executable()
	if err != nil {
		return ""
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close() //nolint:errcheck // it was only read
	var of io.Reader = f
	if id := goBuildID(f); id != "" {
		of = strings.NewReader(id)
	}
	id, err := hashOf(of)
	if err != nil {
		return ""
	}
	return id + "-" + runtime.GOARCH
})

// hashOf is the hash of all that comes.
func hashOf(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

const (
	noteSection = ".note.go.buildid"
	noteHeader  = 16 // lengths of name and id, the kind, and the name "Go" with its padding
	idParts     = 4  // action and content of the program, and of its main package
)

// goBuildID is the id that the go command has put into an ELF file: it covers all that the program was made of. Empty if there is none. To
// hash the file instead takes some 50 ms of computing, just when a process has died and its tasks need that.
func goBuildID(r io.ReaderAt) string {
	f, err := elf.NewFile(r)
	if err != nil {
		return ""
	}
	note := f.Section(noteSection)
	if note == nil {
		return ""
	}
	data, err := note.Data()
	if err != nil || len(data) < noteHeader || string(data[noteHeader-4:noteHeader-1]) != "Go\x00" {
		return ""
	}
	size, rest := f.ByteOrder.Uint32(data[4:]), data[noteHeader:]
	if uint64(size) > uint64(len(rest)) {
		return ""
	}
	id := string(rest[:size])
	if strings.Count(id, "/") != idParts-1 {
		return ""
	}
	return id
}
