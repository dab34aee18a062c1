package supervisor

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/cluster"
)

// Errors of a state directory.
var (
	ErrInUse      = errors.New("supervisor: the state directory is in use by another process")
	ErrOtherShape = errors.New("supervisor: the state directory belongs to another cluster")
)

// Names in the state directory of a run.
const (
	settingsName = "cluster.json"
	secretName   = "secret"
	lockName     = "lock"
	localLedger  = "ledger" // of a job that ran in one process
)

// Settings are what the processes of a run have in common, as its state directory keeps it.
type Settings struct {
	Cluster      string   `json:"cluster"`
	Job          string   `json:"job"`
	Coordinators []string `json:"coordinators"`
	SecretFile   string   `json:"secret_file"` // empty: the secret came from elsewhere
	CA           string   `json:"tls_ca,omitempty"`
	Certificate  string   `json:"tls_cert,omitempty"`
	Key          string   `json:"tls_key,omitempty"`
	Formed       bool     `json:"formed"`   // coordinators have run on these addresses
	Finished     bool     `json:"finished"` // the job has processed all its input
	Input        string   `json:"input"`    // which input that is; empty: not known
}

// underWay tells whether the job has begun and is not complete.
func (s *Settings) underWay() bool { return s.Formed && !s.Finished }

// ReadSettings reads how the processes of a run can be reached.
func ReadSettings(dir string) (Settings, error) {
	var s Settings
	text, err := os.ReadFile(filepath.Join(dir, settingsName))
	if errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("%w (no cluster was started on %s)", err, dir)
	}
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		return s, fmt.Errorf("supervisor: %s: %w", filepath.Join(dir, settingsName), err)
	}
	return s, nil
}

// directory is the state directory of a run, locked.
type directory struct {
	path     string
	settings Settings
	secret   []byte
	lock     io.Closer
}

// inputNow asks which input there is; empty if that is not known, of a job that is under way and has its own.
func (o *Options) inputNow(ctx context.Context) (string, error) {
	if o.Input == nil {
		return "", nil
	}
	if s, err := ReadSettings(o.StateDir); err != nil || !s.underWay() {
		return o.Input(ctx)
	}
	looking, cancel := context.WithTimeout(ctx, cluster.LookTime)
	defer cancel()
	input, err := o.Input(looking)
	if err != nil && looking.Err() == nil {
		o.Logger.Warn("the job goes on with the input that it began with, and there is none now", "error", err)
	}
	if err != nil {
		return "", ctx.Err()
	}
	return input, nil
}

// openDirectory locks a directory and reads its settings, or makes them.
func openDirectory(ctx context.Context, o *Options) (*directory, error) {
	input, err := o.inputNow(ctx)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.StateDir, 0o755); err != nil {
		return nil, fmt.Errorf("supervisor: state directory: %w", err)
	}
	lock, err := checkpoint.LockDir(checkpoint.OSFS(), o.StateDir, lockName, ErrInUse)
	if err != nil {
		return nil, err
	}
	d := &directory{path: o.StateDir, lock: lock}
	if err := d.prepare(o, input); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return d, nil
}

func (d *directory) prepare(o *Options, input string) error {
	if _, err := os.Stat(filepath.Join(d.path, localLedger)); err == nil {
		return fmt.Errorf("%w: %s is of a job that ran in one process, and goes on only there", ErrOtherShape, d.path)
	}
	var err error
	d.settings, err = ReadSettings(d.path)
	switch s := &d.settings; {
	case errors.Is(err, fs.ErrNotExist):
		*s = Settings{Cluster: o.Cluster, Job: o.Job}
		if s.Coordinators, err = freeAddresses(o.Host, o.Coordinators); err != nil {
			return err
		}
	case err != nil:
		return err
	case s.Job != o.Job || s.Cluster != o.Cluster:
		return fmt.Errorf("%w: %s is of job %q in cluster %q, this is job %q in cluster %q", ErrOtherShape, d.path, s.Job, s.Cluster, o.Job, o.Cluster)
	case s.Formed && len(s.Coordinators) != o.Coordinators:
		return fmt.Errorf("%w: %s began with %d coordinators and cannot go on with %d", ErrOtherShape, d.path, len(s.Coordinators), o.Coordinators)
	}
	switch s := &d.settings; {
	case !s.Formed:
		s.Input = input
	case s.Input == "" || s.Input == input || s.underWay() && input == "":
	case s.underWay():
		o.Logger.Warn(cluster.OtherInputNow)
	default:
		return cluster.ErrOtherInput
	}
	if err := d.findSecret(o); err != nil {
		return err
	}
	d.settings.CA, d.settings.Certificate, d.settings.Key = o.CA, o.Certificate, o.Key
	if !d.settings.Formed && (len(d.settings.Coordinators) != o.Coordinators || taken(d.settings.Coordinators) != nil) {
		return d.move(o)
	}
	return d.save()
}

// findSecret takes the secret that was given, or else the directory's own, which is drawn once.
func (d *directory) findSecret(o *Options) error {
	path := filepath.Join(d.path, secretName)
	switch {
	case len(o.Secret) > 0:
		d.secret, d.settings.SecretFile = o.Secret, o.SecretFile
		return nil
	case o.SecretFile != "":
		d.settings.SecretFile = o.SecretFile
	default:
		d.settings.SecretFile = path
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			if err := writeWhole(path, []byte(rand.Text()+rand.Text()+"\n")); err != nil {
				return fmt.Errorf("supervisor: secret: %w", err)
			}
		}
	}
	var err error
	d.secret, err = ReadSecret(d.settings.SecretFile)
	return err
}

// move chooses other addresses for coordinators that have never run, and forgets what a start on the old ones has left.
func (d *directory) move(o *Options) error {
	old := d.settings.Coordinators
	for i := range max(len(old), o.Coordinators) {
		if err := os.RemoveAll(d.process(Coordinator, i)); err != nil {
			return fmt.Errorf("supervisor: state directory: %w", err)
		}
	}
	var err error
	if d.settings.Coordinators, err = freeAddresses(o.Host, o.Coordinators); err != nil {
		return err
	}
	return d.save()
}

func (d *directory) formed() error {
	if d.settings.Formed {
		return nil
	}
	d.settings.Formed = true
	return d.save()
}

// process is the state directory of one process.
func (d *directory) process(role Role, index int) string {
	return filepath.Join(d.path, processName(role, index))
}

func processName(role Role, index int) string { return fmt.Sprintf("%s-%d", role, index) }

func (d *directory) save() error {
	s := d.settings
	s.Coordinators = slices.Clone(s.Coordinators)
	text, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = writeWhole(filepath.Join(d.path, settingsName), append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("supervisor: state directory: %w", err)
	}
	return nil
}

// writeWhole replaces a file that only its owner may read: a reader sees all of it or nothing.
func writeWhole(path string, text []byte) error {
	temporary := path + ".new"
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

// Credentials are those that a client of the run needs.
func (s *Settings) Credentials() Credentials {
	return Credentials{SecretFile: s.SecretFile, CA: s.CA, Certificate: s.Certificate, Key: s.Key}
}
