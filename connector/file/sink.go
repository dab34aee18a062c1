package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
)

// Errors of the sink that a caller may branch on.
var (
	// ErrInUse is returned when another job, or another process of a job without an identity, uses the directory.
	ErrInUse = permanent("file: the directory is in use")
	// ErrForeign is returned when the directory holds output that this package did not write. Nothing is overwritten.
	ErrForeign = permanent("file: the directory holds files of someone else")
	// ErrJob is returned when the directory was written by another job that is not running now.
	ErrJob = permanent("file: the directory belongs to another job")
	// ErrCorrupt is returned when the output and what is stored beside it do not fit together.
	ErrCorrupt = permanent("file: corrupt")
	// ErrGap is returned for a write that does not begin where the output ends.
	ErrGap = errors.New("file: the write does not begin where the output ends")
	// ErrUnfenced is returned for a write by an incarnation that no Fence has announced.
	ErrUnfenced = errors.New("file: the writer has not fenced the store")
	// ErrNewline is returned for a record that would be more than one line.
	ErrNewline = permanent("file: the record contains a newline")
)

// permanent makes an error that ends the job: whoever tries again gets it again.
func permanent(text string) error { return permanentError(text) }

type permanentError string

func (e permanentError) Error() string        { return string(e) }
func (e permanentError) Is(target error) bool { return target == operator.ErrPermanent }

// SinkOptions tunes a Directory. The zero value is the default.
type SinkOptions struct {
	// Identity names the job. It must be the same in every worker of a job, also after a restart of the whole cluster, and
	// differ between any two jobs: two clusters that run one program are two jobs. Without an Identity, only one process
	// at a time may use the directory.
	Identity string
	// Sync makes the output survive a loss of power, at the price of two fsyncs per write. Without it, it survives the
	// death of processes.
	Sync bool
	// Patience is how long a Fence waits for a replaced writer that is in the middle of a write before it leaves the writer
	// a copy of the output that nobody sees. Default 2 s.
	Patience time.Duration
	// RollBytes closes a file before a line would make it longer than that, and begins the next; 0 never closes one. A file has at least one
	// line.
	RollBytes int64
	// RollEvery closes a file when the first line comes this long after it was begun; 0 never does. Its age is the machine's clock against
	// the time in its name.
	RollEvery time.Duration
	// Key puts each record into files in a folder of its key, which it tells from the encoded record. It must be a function of
	// the record alone.
	Key func(record []byte) (string, error)
	// Shared says that processes on several machines use the directory: locks are not relied on, each Fence copies the files that the former writer
	// had open, and Sync is on.
	Shared bool
	// Mutations switches rules off; for tests of this project only.
	Mutations mutation.Set
}

// EnsureDefaults fills in what is zero.
func (o *SinkOptions) EnsureDefaults() {
	if o.Patience == 0 {
		o.Patience = 2 * time.Second
	}
	o.Sync = o.Sync || o.Shared
}

// Validate tells what is wrong with the options.
func (o *SinkOptions) Validate() error {
	if o.Patience < 0 {
		return fmt.Errorf("file: negative patience %v", o.Patience)
	}
	if o.RollBytes < 0 || o.RollEvery < 0 {
		return fmt.Errorf("file: files cannot be closed after %d bytes, or %v", o.RollBytes, o.RollEvery)
	}
	if o.RollEvery > 0 && o.RollEvery < time.Second {
		return fmt.Errorf("file: files cannot be closed every %v: their names tell seconds", o.RollEvery)
	}
	return nil
}

// Directory shows the output of each sink task in a file of its own. It implements operator.CausalSink.
type Directory struct {
	dir     string
	options SinkOptions
	disk    disk
	now     func() time.Time
	mu      struct {
		sync.Mutex
		identity string
		parts    map[int]*part // open parts by task
		lock     *fileLock     // held while any part is open
	}
}

var _ operator.LineSink = (*Directory)(nil)

// Sink shows output in dir: task 3 of a sink writes dir/part-00003.jsonl, one record per line, as the sink's codec encodes
// it. The directory is made if there is none. Every worker of the job must see the same local directory.
func Sink(dir string, o SinkOptions) *Directory {
	o.EnsureDefaults()
	d := &Directory{dir: filepath.Clean(dir), options: o, disk: osDisk{}, now: time.Now}
	d.mu.identity = o.Identity
	d.mu.parts = make(map[int]*part)
	return d
}

// Lines makes it an operator.LineSink.
func (*Directory) Lines() {}

// Identify gives the directory the job's identity unless the options have one. The engine calls it before Open.
func (d *Directory) Identify(identity string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.options.Identity != "" || d.mu.identity == identity {
		return nil
	}
	if d.mu.lock != nil {
		return fmt.Errorf("%w: %s is open as that of job %q", ErrInUse, d.dir, d.mu.identity)
	}
	d.mu.identity = identity
	return nil
}

// Open opens the part of one task. It makes sure that the directory is this job's.
func (d *Directory) Open(ctx context.Context, task, n int) (operator.CausalStore, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := d.options.Validate(); err != nil {
		return nil, err
	}
	if task < 0 || task >= n {
		return nil, fmt.Errorf("file: there is no task %d of %d", task, n)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.lock == nil {
		if err := d.occupy(); err != nil {
			return nil, err
		}
	}
	p := d.mu.parts[task]
	if p == nil {
		p = &part{
			task: task, name: partName(task), dir: d.dir, hidden: d.hidden(), disk: d.disk,
			options: d.options, now: d.now,
		}
		d.mu.parts[task] = p
	}
	p.opens++
	return &store{directory: d, part: p}, nil
}

// release undoes one Open.
func (d *Directory) release(p *part) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.opens--; p.opens > 0 {
		return nil
	}
	delete(d.mu.parts, p.task)
	err := p.close()
	if len(d.mu.parts) == 0 {
		err = errors.Join(err, d.mu.lock.close())
		d.mu.lock = nil
	}
	return err
}

func (d *Directory) hidden() string { return filepath.Join(d.dir, ".understudy") }

// occupy takes the directory for this job, or says whose it is. The caller holds mu.
func (d *Directory) occupy() error {
	if err := d.refuseForeign(); err != nil {
		return err
	}
	if err := os.MkdirAll(d.hidden(), 0o777); err != nil {
		return fmt.Errorf("file: %w", err)
	}
	lock, err := openLock(filepath.Join(d.hidden(), "lock"))
	if err != nil {
		return err
	}
	if err := d.claim(lock); err != nil {
		return errors.Join(err, lock.close())
	}
	d.mu.lock = lock
	return nil
}

// refuseForeign looks for output first and for the hidden directory afterwards: a process of this job that is setting the
// directory up makes them the other way round.
func (d *Directory) refuseForeign() error {
	entries, err := os.ReadDir(d.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("file: %w", err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".jsonl") {
			continue
		}
		if ours, err := exists(filepath.Join(d.hidden(), "job")); ours || err != nil {
			return err
		}
		return fmt.Errorf("%w: %s is there, but no %s: nothing was overwritten", ErrForeign,
			filepath.Join(d.dir, e.Name()), d.hidden())
	}
	return nil
}

// claim takes the lock, shared within a job that has an identity, and compares the job.
func (d *Directory) claim(lock *fileLock) error {
	if d.options.Shared {
		return d.compareJob()
	}
	how := unix.LOCK_SH
	if d.mu.identity == "" {
		how = unix.LOCK_EX
	}
	ok, err := lock.try(how)
	if err != nil {
		return err
	}
	if !ok {
		return d.inUse()
	}
	owner, err := d.owner()
	if err != nil {
		return err
	}
	if owner != d.mu.identity {
		if alone, err := lock.try(unix.LOCK_EX); err != nil {
			return err
		} else if !alone {
			return d.inUse()
		}
		return fmt.Errorf("%w: %s belongs to job %q, this is job %q: nothing was overwritten", ErrJob, d.dir, owner, d.mu.identity)
	}
	// Who holds the lock is told to people only; several processes of one job overwrite one another.
	note := fmt.Sprintf("pid %d, job %q\n", os.Getpid(), d.mu.identity)
	if err := lock.file.Truncate(0); err != nil {
		return fmt.Errorf("file: %w", err)
	}
	if _, err := lock.file.WriteAt([]byte(note), 0); err != nil {
		return fmt.Errorf("file: %w", err)
	}
	return nil
}

// compareJob is what is left of claim without locks: only the job's name.
func (d *Directory) compareJob() error {
	if d.mu.identity == "" {
		return fmt.Errorf("file: %s is shared: SinkOptions.Identity must name the job", d.dir)
	}
	owner, err := d.owner()
	if err == nil && owner != d.mu.identity {
		err = fmt.Errorf("%w: %s belongs to job %q, this is job %q: nothing was overwritten", ErrJob, d.dir, owner, d.mu.identity)
	}
	return err
}

func (d *Directory) inUse() error {
	note, err := os.ReadFile(filepath.Join(d.hidden(), "lock"))
	if err != nil || len(note) == 0 {
		note = []byte("a process that has not said its name")
	}
	return fmt.Errorf("%w: %s is held by %s; this is pid %d, job %q", ErrInUse, d.dir, strings.TrimSpace(string(note)),
		os.Getpid(), d.mu.identity)
}

const jobFormat = "understudy file sink 1\n"

// owner gives the identity in the job file. The first process to come writes its own there: a link is made by one only.
func (d *Directory) owner() (string, error) {
	name := filepath.Join(d.hidden(), "job")
	data, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		if err := d.writeJob(name); err != nil {
			return "", err
		}
		data, err = os.ReadFile(name)
	}
	if err != nil {
		return "", fmt.Errorf("file: %w", err)
	}
	quoted, ok := strings.CutPrefix(string(data), jobFormat)
	identity, err := strconv.Unquote(strings.TrimSuffix(quoted, "\n"))
	if !ok || err != nil {
		return "", fmt.Errorf("%w: %s does not name a job", ErrCorrupt, name)
	}
	return identity, nil
}

func (d *Directory) writeJob(name string) error {
	f, err := os.CreateTemp(d.hidden(), "job.new-")
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	_, err = f.WriteString(jobFormat + strconv.Quote(d.mu.identity) + "\n")
	if d.options.Sync && err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		if err = os.Link(f.Name(), name); errors.Is(err, os.ErrExist) {
			err = nil
		}
	}
	err = errors.Join(err, os.Remove(f.Name()))
	if d.options.Sync && err == nil {
		err = errors.Join(d.disk.SyncDir(d.hidden()), d.disk.SyncDir(d.dir))
	}
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	return nil
}
