package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"

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
	// MergeBytes is how much must have been committed on top of a task's state, and be as much as the state, before the two are written
	// as one; default 1 MiB.
	MergeBytes int
	// SpareFiles is how many files that are not needed any more are kept to be written anew, each of 16 MiB at most, all of 128 MiB; default 64, negative: none.
	SpareFiles int
	// Mutations switches rules off, in tests.
	Mutations mutation.Set
}

// EnsureDefaults fills in the defaults.
func (o *StoreOptions) EnsureDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.MergeBytes <= 0 {
		o.MergeBytes = 1 << 20
	}
	if o.SpareFiles == 0 {
		o.SpareFiles = spareFiles
	}
}

// Store keeps the checkpoints of the tasks that a worker runs or stands by for: per task one committed state, and images that are not
// committed yet, all in files of one format. All methods may be called from any goroutine, and each change is durable when its method returns
// nil. A method that fails with an error of the disk has changed nothing that matters and may be called again.
//
// The committed state of a task is a chain of parts: an image of the whole, and what has changed since. To commit an image is to give its file the
// name of a part, whatever its size. Parts are dropped when all in them was written again (chain.go), and merged in the background of later commits
// (merge.go).
//
// Callbacks must not call the store.
type Store struct {
	fs         vfs.FS
	dir        string // of the image files
	lock       io.Closer
	mergeBytes uint64
	spares     int
	maxParts   int // see there
	maxCleaned int
	mutations  mutation.Set

	// Lock order: life, fold, mu.

	life   sync.RWMutex // held for reading by every method, for writing by Close
	closed bool

	// fold serialises everything that changes committed state.
	fold sync.Mutex
	// removed says that images were removed and come back after a crash, as far as is known. Guarded by fold.
	removed bool
	// merge is under way, across commits; nil: none. Guarded by fold.
	merge *merge
	// failedMerges is how many have failed in a row. Guarded by fold.
	failedMerges int

	syncs struct {
		sync.Mutex
		next *nameSync  // is to begin when it is its turn; nil: nobody waits for one
		turn sync.Mutex // one at a time
	}

	mu struct {
		sync.Mutex
		// Invariant: the parts of a chain follow one another: each other one begins where the one before ends. Let since be the greatest of
		// theirs: the first begins there or before, and ends later.
		chains map[determinant.TaskID][]part // changed under fold too
		// changed has the bytes of the newest image that was committed, merged or not.
		changed map[determinant.TaskID]uint64
		// whole has how many bytes the state takes as one image, at least about.
		whole map[determinant.TaskID]uint64
		// garbage has the parts that are not needed any more and still are there, in the order in which they are to be removed. Invariant:
		// when its task's chain grows, none reaches beyond the chain: it might fit onto it one day.
		garbage []leftover
		reading map[string]int           // how many readers a part that is or was in a chain has, by name
		images  map[imageID]*pending     // Invariant: of the highest incarnation that was put
		putting map[string]chan struct{} // by image name; closed when the call that puts it has ended
		temp    uint64                   // number of the next temporary file
		merging uint64                   // bytes of the file that a merge writes
		merged  determinant.TaskID       // of the last merge that was begun
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

// storeVersion is the layout of the directory, written in front of the identity.
const storeVersion = 5

// identityName is the file that says whose the directory is.
const identityName = "job"

// OpenStore opens the store in dir, or makes it. The error has ErrLocked in its chain if dir is open already, ErrWrongJob
// if it belongs to another job; then nothing in it was changed.
func OpenStore(dir string, o StoreOptions) (*Store, error) {
	o.EnsureDefaults()
	s := &Store{
		fs: o.FS, dir: o.FS.PathJoin(dir, "images"), mutations: o.Mutations,
		mergeBytes: uint64(o.MergeBytes), spares: o.SpareFiles, maxParts: maxParts, maxCleaned: maxCleaned,
	}
	s.mu.chains = make(map[determinant.TaskID][]part)
	s.mu.changed = make(map[determinant.TaskID]uint64)
	s.mu.whole = make(map[determinant.TaskID]uint64)
	s.mu.images = make(map[imageID]*pending)
	s.mu.reading = make(map[string]int)
	s.mu.putting = make(map[string]chan struct{})
	if err := makeDirs(o.FS, s.dir); err != nil {
		return nil, fmt.Errorf("checkpoint: make %s: %w", dir, err)
	}
	var err error
	if s.lock, err = LockDir(o.FS, dir, "LOCK", ErrLocked); err != nil {
		return nil, err
	}
	if err = s.identify(dir, o.Identity); err == nil {
		err = s.load()
	}
	if err != nil {
		return nil, errors.Join(err, s.lock.Close())
	}
	return s, nil
}

// identify compares the directory's identity with the job's, or gives a new directory the job's.
func (s *Store) identify(dir, identity string) error {
	name := s.fs.PathJoin(dir, identityName)
	f, err := s.fs.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		temp := name + tempSuffix
		f, err := s.fs.Create(temp, vfs.WriteCategoryUnspecified)
		if err == nil {
			err = s.writeFile(temp, f, append([]byte{storeVersion}, identity...), false)
		}
		if err != nil {
			return fmt.Errorf("checkpoint: write identity of %s: %w", dir, err)
		}
		if err := errors.Join(s.fs.Rename(temp, name), syncDir(s.fs, dir)); err != nil {
			return fmt.Errorf("checkpoint: write identity of %s: %w", dir, err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("checkpoint: read identity of %s: %w", dir, err)
	}
	value, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("checkpoint: read identity of %s: %w", dir, err)
	}
	if len(value) == 0 || value[0] != storeVersion {
		return fmt.Errorf("%w: %s has store version %x, this build reads %d", ErrCorrupt, dir, value[:min(1, len(value))], storeVersion)
	}
	if have := string(value[1:]); have != identity {
		return fmt.Errorf("%w: %s is of job %q, not of job %q", ErrWrongJob, dir, have, identity)
	}
	return nil
}

// enter is the start of every method: it keeps Close out until leave.
func (s *Store) enter() error {
	s.life.RLock()
	if s.closed {
		s.life.RUnlock()
		return ErrClosed
	}
	return nil
}

func (s *Store) leave() { s.life.RUnlock() }

// Close waits for calls under way and closes the store.
func (s *Store) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.closed = true
	err := s.abandonMerge()
	if lerr := s.lock.Close(); lerr != nil {
		err = errors.Join(err, fmt.Errorf("checkpoint: unlock: %w", lerr))
	}
	return err
}

// Held returns the committed checkpoint that the store has of the task; 0 is the empty state, which every store has.
func (s *Store) Held(t determinant.TaskID) determinant.Epoch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heldLocked(t).Epoch
}

// heldLocked is what is committed of the task. s.mu is held.
func (s *Store) heldLocked(t determinant.TaskID) Holding {
	chain := s.mu.chains[t]
	if len(chain) == 0 {
		return Holding{Task: t}
	}
	last := chain[len(chain)-1]
	return Holding{Task: t, Epoch: last.epoch, Incarnation: last.inc}
}

// Sizes is how many bytes the state of the task takes as one image, by the last that was made of it, or by reckoning if its task cleans; and how many
// the newest change to it did; 0 if that is not known, since the state was imported, or is from before the store was opened.
func (s *Store) Sizes(t determinant.TaskID) (whole, newest uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.whole[t], s.mu.changed[t]
}

// Holdings lists all committed checkpoints above 0 that the store has, by task.
func (s *Store) Holdings() []Holding {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Holding, 0, len(s.mu.chains))
	for t := range s.mu.chains { // sorted below
		list = append(list, s.heldLocked(t))
	}
	slices.SortFunc(list, func(a, b Holding) int { return cmp.Compare(a.Task, b.Task) })
	return list
}

// DiskBytes is what the store takes on disk: committed state, images, and what is being merged.
func (s *Store) DiskBytes() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.mu.merging
	for _, chain := range s.mu.chains {
		for _, p := range chain {
			n += p.room
		}
	}
	for _, p := range s.mu.garbage {
		n += p.room
	}
	for _, p := range s.mu.images {
		n += p.room
	}
	return n
}

// makeDirs makes a directory with those that it is in, and durable: all of those are synced, also where nothing was missing, since a process that
// was killed may have made it. Where that is not allowed, or not possible, somebody else has made what is in it.
func makeDirs(fs vfs.FS, dir string) error {
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for d := dir; fs.PathDir(d) != d; d = fs.PathDir(d) {
		err := syncDir(fs, fs.PathDir(d))
		if err != nil && !errors.Is(err, os.ErrPermission) && !errors.Is(err, syscall.EINVAL) {
			return err
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
