package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/standby"
)

// Errors of a state directory.
var (
	ErrWrongJob      = errors.New("cluster: the state directory belongs to another job")
	ErrLedgerCorrupt = errors.New("cluster: the ledger is corrupt")
	ErrInUse         = errors.New("cluster: the state directory is in use by another process")
)

const (
	ledgerName   = "ledger"
	lockName     = "lock"
	frameHeader  = 8    // length and CRC-32C
	compactAfter = 2048 // entries
	maxFrame     = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ledgerState is all that the ledger says.
type ledgerState struct {
	Identity string // of the job's graph
	Shape    string // the graph in words
	Run      string // drawn when the job began: two runs of one program are two jobs to everyone outside
	View     View
	Recovery standby.State
	Points   checkpoint.State
	Finished *Finish
}

// name tells this run of the job from every other.
func (s *ledgerState) name() string { return s.Identity + "-" + s.Run }

// lastWorker is the highest worker id that the ledger names.
func (s *ledgerState) lastWorker() determinant.WorkerID {
	var last determinant.WorkerID
	for _, list := range [][]determinant.WorkerID{s.Recovery.Dead, s.Recovery.Hear} {
		for _, w := range list {
			last = max(last, w)
		}
	}
	for _, l := range s.Recovery.Draining {
		last = max(last, l.Worker)
	}
	for _, p := range s.Recovery.Tasks {
		last = max(last, p.Worker)
		for _, w := range p.Standbys {
			last = max(last, w)
		}
	}
	return last
}

// ledgerFile is the file that entries are appended to.
type ledgerFile interface {
	io.WriteCloser
	Sync() error
}

// localLedger is a Ledger for one process: a file of checksummed frames. The first is a ledgerState, each further one the
// entries that were committed together. A torn last frame is dropped: it was never acted on.
//
// Invariant: an entry is on disk before anybody is told of it.
type localLedger struct {
	fs        checkpoint.FS
	dir       string
	lock      io.Closer
	file      ledgerFile
	entries   int
	pending   []Entry
	broken    error       // of the first flush that failed
	state     ledgerState // as read when the ledger was opened, then of the last compaction
	committed func(Entry)
	current   func() ledgerState
}

// openLedger opens the ledger in dir, or begins a new one. Nothing is made before the input of a new job is known.
func openLedger(ctx context.Context, fs checkpoint.FS, dir string, job *Job, mode determinant.Mode, depth determinant.Depth) (*localLedger, error) {
	l := &localLedger{fs: fs, dir: dir}
	var splits [][]string
	_, err := fs.Stat(fs.PathJoin(dir, ledgerName))
	fresh := errors.Is(err, os.ErrNotExist)
	if fresh {
		if splits, err = listSplits(ctx, job); err != nil {
			return nil, err
		}
	}
	if err := fs.MkdirAll(fs.PathJoin(dir, "."), 0o755); err != nil {
		return nil, fmt.Errorf("cluster: state directory: %w", err)
	}
	if l.lock, err = checkpoint.LockDir(fs, dir, lockName, ErrInUse); err != nil {
		return nil, err
	}
	read, err := l.read(job)
	switch {
	case err != nil || read:
	case fresh:
		l.state = newLedgerState(job, rand.Text(), splits, mode, depth)
	default:
		err = fmt.Errorf("cluster: %s has vanished", filepath.Join(dir, ledgerName))
	}
	if err == nil {
		err = l.compact()
	}
	if err != nil {
		return nil, errors.Join(err, l.lock.Close())
	}
	return l, nil
}

// listSplits asks every source for its splits.
func listSplits(ctx context.Context, job *Job) ([][]string, error) {
	splits := make([][]string, len(job.Plan.Vertices))
	for v := range job.Plan.Vertices {
		if list := job.Plan.Vertices[v].Source; list != nil {
			var err error
			if splits[v], err = list(ctx); err != nil {
				return nil, err
			}
		}
	}
	return splits, nil
}

// read reads the ledger file and applies its entries; false if there is none.
func (l *localLedger) read(job *Job) (bool, error) {
	f, err := l.fs.Open(l.fs.PathJoin(l.dir, ledgerName))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cluster: ledger: %w", err)
	}
	raw, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return false, fmt.Errorf("cluster: ledger: %w", err)
	}
	first, rest, err := nextFrame(raw)
	if err != nil {
		return false, fmt.Errorf("%w: %s does not begin with a state", ErrLedgerCorrupt, filepath.Join(l.dir, ledgerName))
	}
	if err := msgpack.Unmarshal(first, &l.state); err != nil {
		return false, fmt.Errorf("%w: state: %w", ErrLedgerCorrupt, err)
	}
	if l.state.Identity != identityOf(job) {
		return false, fmt.Errorf("%w: %s", ErrWrongJob, otherGraph(l.dir, l.state.Shape, job.Plan.Shape))
	}
	return true, l.replay(job, rest)
}

// replay applies the entries after the first frame, by a coordinator that does not lead.
func (l *localLedger) replay(job *Job, rest []byte) error {
	s := &l.state
	c := NewCoordinator(job, s.View, s.Recovery, s.Points, l, nowhere{}, CoordinatorOptions{Mode: s.View.Mode, Depth: s.View.Depth})
	for len(rest) > 0 {
		frame, after, err := nextFrame(rest)
		if errors.Is(err, errTorn) {
			break
		}
		if err != nil {
			return fmt.Errorf("%w, %d bytes from its end", err, len(rest))
		}
		rest = after
		entries, err := decodeEntries(frame)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Finish != nil && e.Finish.Err != "" {
				continue // what stopped the job may be mended by now: it goes on from its last checkpoint
			}
			c.Committed(e)
			if e.Finish != nil {
				s.Finished = e.Finish
			}
		}
	}
	l.pending = nil
	s.View, s.Recovery, s.Points = c.View(), c.decider.State(), c.points.State()
	return nil
}

// errTorn says that the file ends in the middle of a frame: the process died while it wrote it.
var errTorn = errors.New("cluster: the ledger's last frame is torn")

// nextFrame splits off the next frame. A frame that is not what was written is torn if it is the last, and corrupt if the file
// goes on behind it: what follows was acted on.
func nextFrame(src []byte) (frame, rest []byte, err error) {
	if len(src) < frameHeader {
		return nil, nil, errTorn
	}
	n, sum := binary.LittleEndian.Uint32(src), binary.LittleEndian.Uint32(src[4:])
	if n == 0 || n > maxFrame || uint64(n) > uint64(len(src)-frameHeader) {
		return nil, nil, errTorn // n is 0 where the file grew, but not what was written to it
	}
	frame, rest = src[frameHeader:frameHeader+int(n)], src[frameHeader+int(n):]
	switch {
	case crc32.Checksum(frame, castagnoli) == sum:
		return frame, rest, nil
	case len(rest) == 0:
		return nil, nil, errTorn
	}
	return nil, nil, fmt.Errorf("%w: checksum of a frame of %d bytes", ErrLedgerCorrupt, n)
}

func appendFrame(dst, frame []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(frame)))
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(frame, castagnoli))
	return append(dst, frame...)
}

// decodeEntries reads the entries of a frame, one after the other.
func decodeEntries(src []byte) (entries []Entry, err error) {
	r := bytes.NewReader(src)
	dec := msgpack.NewDecoder(r)
	for r.Len() > 0 {
		var e Entry
		if err := dec.Decode(&e); err != nil {
			return nil, fmt.Errorf("%w: entry: %w", ErrLedgerCorrupt, err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// compact writes a new file that begins with the present state and puts it in the place of the old one.
func (l *localLedger) compact() error {
	if l.current != nil {
		l.state = l.current()
	}
	body, err := msgpack.Marshal(&l.state)
	if err != nil {
		return fmt.Errorf("cluster: ledger state: %w", err)
	}
	temporary, name := l.fs.PathJoin(l.dir, ledgerName+".new"), l.fs.PathJoin(l.dir, ledgerName)
	f, err := l.fs.Create(temporary, "ledger")
	if err != nil {
		return fmt.Errorf("cluster: ledger: %w", err)
	}
	if _, err = f.Write(appendFrame(nil, body)); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = l.fs.Rename(temporary, name)
	}
	if err == nil {
		err = l.syncDir() // otherwise the name may still be the old file's after a power failure
	}
	if err != nil {
		return fmt.Errorf("cluster: ledger: %w", errors.Join(err, f.Close()))
	}
	if l.file != nil {
		if err := l.file.Close(); err != nil {
			return fmt.Errorf("cluster: ledger: %w", err)
		}
	}
	l.file, l.entries = f, 0
	return nil
}

func (l *localLedger) syncDir() error {
	dir, err := l.fs.OpenDir(l.fs.PathJoin(l.dir, "."))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Propose queues an entry; flush commits it.
func (l *localLedger) Propose(e Entry) { l.pending = append(l.pending, e) }

// flush makes what was proposed durable and hands it on, until nothing new is proposed.
// An error stays: what is on disk behind a write that failed is not known, and nothing may be acted upon that is not there.
func (l *localLedger) flush() error {
	if l.broken == nil {
		l.broken = l.commit()
	}
	if l.broken != nil {
		l.pending = nil
	}
	return l.broken
}

func (l *localLedger) commit() error {
	for len(l.pending) > 0 {
		entries := l.pending
		l.pending = nil
		var frame []byte // one for all, so that only the last can be torn
		for _, e := range entries {
			body, err := msgpack.Marshal(&e)
			if err != nil {
				return err
			}
			frame = append(frame, body...)
		}
		if _, err := l.file.Write(appendFrame(nil, frame)); err != nil {
			return err
		}
		if err := l.file.Sync(); err != nil {
			return err
		}
		for _, e := range entries {
			l.committed(e)
		}
		if l.entries += len(entries); l.entries >= compactAfter && l.current != nil {
			if err := l.compact(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *localLedger) close() error {
	return errors.Join(l.file.Close(), l.lock.Close())
}

// nowhere is the environment of a coordinator that only follows the ledger.
type nowhere struct{}

func (nowhere) Broadcast(Entry)                    {}
func (nowhere) Tell(determinant.WorkerID, Control) {}
func (nowhere) Finished(error)                     {}
func (nowhere) Waiting(string)                     {}
func (nowhere) Discover(int, []string)             {}
