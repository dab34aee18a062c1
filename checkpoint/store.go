package checkpoint

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

// StoreOptions configure a Store. Zero values are the defaults.
type StoreOptions struct {
	// FS is the filesystem; the default is the operating system's. Tests give vfs.NewMem, vfs.NewCrashableMem or
	// errorfs.Wrap of one.
	FS vfs.FS
	// Identity is a hash of the job. A directory belongs to the first identity that opened it.
	Identity string
	// CacheBytes bounds Pebble's block cache; default 8 MiB, or 64 KiB with a given FS.
	CacheBytes int64
	// MemTableBytes bounds one of Pebble's memtables; default 16 MiB, or 128 KiB with a given FS. Up to four are in memory, which begin
	// small. The bigger they are, the less of the state is written again and again by compactions.
	MemTableBytes int
	// Mutations switches rules off, in tests.
	Mutations mutation.Set
}

// EnsureDefaults fills in the defaults.
func (o *StoreOptions) EnsureDefaults() {
	given := o.FS != nil
	if !given {
		o.FS = vfs.Default
	}
	if o.CacheBytes <= 0 {
		o.CacheBytes = 8 << 20
		if given {
			o.CacheBytes = 64 << 10
		}
	}
	if o.MemTableBytes <= 0 {
		o.MemTableBytes = 16 << 20
		if given {
			o.MemTableBytes = 128 << 10
		}
	}
}

// Store keeps the checkpoints of the tasks that a worker runs or stands by for: per task one committed state, in Pebble,
// and images that are not committed yet, in files beside it. All methods may be called from any goroutine, and each change
// is durable when its method returns nil. A method that fails with a write error of the image files has changed nothing
// that matters and may be called again; for a failure under Pebble see ErrFailed.
//
// Callbacks must not call the store.
type Store struct {
	fs        vfs.FS
	dir       string // of the image files
	lock      io.Closer
	db        *pebble.DB
	fault     *fault
	mutations mutation.Set

	// Lock order: life, fold, mu.

	life   sync.RWMutex // held for reading by every method, for writing by Close
	closed bool

	// fold serialises everything that changes committed state.
	fold sync.Mutex

	mu struct {
		sync.Mutex
		held   map[determinant.TaskID]Holding
		images map[imageID]determinant.Incarnation // of the image files; Invariant: the highest incarnation that was put
		temp   uint64                              // number of the next temporary file
		// recent has the bytes of some images that were put, which are verified and on disk, so that a fold need not read them back.
		// Invariant: each is that of the file in images; together they are recentBytes, at most maxRecent.
		recent      map[imageID][]byte
		recentBytes int
	}
}

// Life names one life of a task.
type Life struct {
	Task        determinant.TaskID
	Incarnation determinant.Incarnation
}

// Holding is a committed checkpoint of a task that a store has.
type Holding struct {
	Task        determinant.TaskID
	Epoch       determinant.Epoch
	Incarnation determinant.Incarnation // whose image it is
}

// separation keeps values that are not small out of the tables that compactions write again and again: where 1% of a state changes between
// two checkpoints, scattered over all keys, compactions would otherwise cost more than everything else together. Files of values are
// written anew when half of them is of no use any more.
var separation = pebble.ValueSeparationPolicy{Enabled: true, MinimumSize: 256, MaxBlobReferenceDepth: 64, TargetGarbageRatio: 0.5}

// l0Threshold is the number of flushes, counted twice, that lie on one another before they are merged into what is below. A merge rewrites the keys of
// the whole state, if the changes are scattered over it.
const l0Threshold = 64

// storeVersion is the layout of the directory, written in front of the identity.
const storeVersion = 1

// OpenStore opens the store in dir, or makes it. The error has ErrLocked in its chain if dir is open already, ErrWrongJob
// if it belongs to another job; then nothing in it was changed.
func OpenStore(dir string, o StoreOptions) (*Store, error) {
	o.EnsureDefaults()
	s := &Store{fs: o.FS, dir: o.FS.PathJoin(dir, "images"), fault: newFault(), mutations: o.Mutations}
	s.mu.held = make(map[determinant.TaskID]Holding)
	s.mu.images = make(map[imageID]determinant.Incarnation)
	s.mu.recent = make(map[imageID][]byte)
	if err := makeDirs(o.FS, dir, s.dir); err != nil {
		return nil, fmt.Errorf("checkpoint: make %s: %w", dir, err)
	}
	var err error
	if s.lock, err = LockDir(o.FS, dir, "LOCK", ErrLocked); err != nil {
		return nil, err
	}
	if err := s.open(dir, &o); err != nil {
		return nil, errors.Join(err, s.shut())
	}
	return s, nil
}

func (s *Store) open(dir string, o *StoreOptions) error {
	cache := pebble.NewCache(o.CacheBytes)
	defer cache.Unref()
	po := &pebble.Options{
		FS:                          o.FS,
		Cache:                       cache,
		MemTableSize:                uint64(o.MemTableBytes),
		MemTableStopWritesThreshold: 4,
		FormatMajorVersion:          pebble.FormatNewest,
		L0CompactionThreshold:       l0Threshold,
		L0StopWritesThreshold:       4 * l0Threshold,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 1 },
		DisableTableStats:           true,
		MaxOpenFiles:                256,
		Logger:                      s.fault,
		EventListener: &pebble.EventListener{
			BackgroundError: s.fault.backgroundError,
			DataCorruption:  func(pebble.DataCorruptionInfo) {}, // the reader gets the error
		},
	}
	po.Experimental.FileCacheShards = 1
	po.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy { return separation }
	err := s.fault.run(func() (err error) {
		s.db, err = pebble.Open(o.FS.PathJoin(dir, "state"), po)
		return err
	})
	if err != nil {
		return fmt.Errorf("checkpoint: open %s: %w", dir, err)
	}
	if err := s.identify(dir, o.Identity); err != nil {
		return err
	}
	if err := s.loadHeld(); err != nil {
		return err
	}
	return s.loadImages()
}

// identify compares the directory's identity with the job's, or gives a new directory the job's.
func (s *Store) identify(dir, identity string) error {
	value, closer, err := s.db.Get([]byte{keyIdentity})
	if errors.Is(err, pebble.ErrNotFound) {
		return s.fault.run(func() error {
			return s.db.Set([]byte{keyIdentity}, append([]byte{storeVersion}, identity...), pebble.Sync)
		})
	}
	if err != nil {
		return fmt.Errorf("checkpoint: read identity of %s: %w", dir, err)
	}
	defer func() { _ = closer.Close() }()
	if len(value) == 0 || value[0] != storeVersion {
		return fmt.Errorf("%w: %s has store version %x, this build reads %d", ErrCorrupt, dir, value[:min(1, len(value))], storeVersion)
	}
	if have := string(value[1:]); have != identity {
		return fmt.Errorf("%w: %s is of job %q, not of job %q", ErrWrongJob, dir, have, identity)
	}
	return nil
}

// loadHeld reads what is committed.
func (s *Store) loadHeld() error {
	iter, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyMeta}, UpperBound: []byte{keyMeta + 1}})
	if err != nil {
		return fmt.Errorf("checkpoint: read metas: %w", err)
	}
	for ok := iter.First(); ok; ok = iter.Next() {
		m, err := decodeMeta(iter.Value())
		if err == nil && !bytes.Equal(iter.Key(), metaKey(m.Task)) {
			err = fmt.Errorf("%w: meta of task %d under key %x", ErrCorrupt, m.Task, iter.Key())
		}
		if err != nil {
			return errors.Join(err, iter.Close())
		}
		s.mu.held[m.Task] = Holding{Task: m.Task, Epoch: m.Epoch, Incarnation: m.Incarnation}
	}
	return errors.Join(iter.Error(), iter.Close())
}

// enter is the start of every method: it keeps Close out until leave.
func (s *Store) enter() error {
	s.life.RLock()
	err := s.fault.check()
	if s.closed {
		err = ErrClosed
	}
	if err != nil {
		s.life.RUnlock()
	}
	return err
}

func (s *Store) leave() { s.life.RUnlock() }

// Close waits for calls under way and closes the store. A store that failed keeps its directory locked.
func (s *Store) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.closed = true
	return s.shut()
}

func (s *Store) shut() error {
	if err := s.fault.check(); err != nil {
		return err // the lock stays
	}
	if s.db != nil {
		if err := s.fault.run(s.db.Close); err != nil {
			return fmt.Errorf("checkpoint: close: %w", err)
		}
	}
	if err := s.lock.Close(); err != nil {
		return fmt.Errorf("checkpoint: unlock: %w", err)
	}
	return nil
}

// Held returns the committed checkpoint that the store has of the task; 0 is the empty state, which every store has.
func (s *Store) Held(t determinant.TaskID) determinant.Epoch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.held[t].Epoch
}

// Holdings lists all committed checkpoints above 0 that the store has, by task.
func (s *Store) Holdings() []Holding {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Holding, 0, len(s.mu.held))
	for _, h := range s.mu.held {
		list = append(list, h)
	}
	slices.SortFunc(list, func(a, b Holding) int { return cmp.Compare(a.Task, b.Task) })
	return list
}

// makeDirs makes the directories, and durable: every ancestor that was missing, and the first that was not, is synced.
func makeDirs(fs vfs.FS, dirs ...string) error {
	for _, dir := range dirs {
		var missing []string
		for d := dir; ; d = fs.PathDir(d) {
			_, err := fs.Stat(d)
			if err == nil {
				break
			}
			if !errors.Is(err, os.ErrNotExist) {
				return err
			}
			missing = append(missing, d)
			if fs.PathDir(d) == d {
				break
			}
		}
		if len(missing) == 0 {
			continue
		}
		if err := fs.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for _, d := range missing {
			if err := syncDir(fs, fs.PathDir(d)); err != nil {
				return err
			}
		}
	}
	return nil
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
