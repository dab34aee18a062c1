package supervisor

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// drainTimeout bounds how long output is waited for that a grandchild may still hold open when its parent has ended.
const drainTimeout = time.Second

// spawner starts processes, all from one thread of the operating system that lives as long as they do: a child is killed when
// the thread that started it ends, which is not always the end of the process.
type spawner struct {
	orders chan func()
	ended  sync.WaitGroup // the thread, and those who follow processes
}

func newSpawner() *spawner {
	s := &spawner{orders: make(chan func())}
	s.ended.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for order := range s.orders {
			order()
		}
	})
	return s
}

func (s *spawner) do(order func() error) error {
	done := make(chan error, 1)
	s.orders <- func() { done <- order() }
	return <-done
}

func (s *spawner) close() {
	close(s.orders)
	s.ended.Wait()
}

// command is the program that children run.
type command struct {
	path string
	args []string
}

// process is one life of a child.
type process struct {
	cmd      *exec.Cmd
	lifeline *os.File
	started  time.Time
	tail     *tail
	ended    *ended // what it said before it ended; read it after the end
}

// exit is the end of a process.
type exit struct {
	proc  *process
	state *os.ProcessState // nil if it could not be waited for
	err   error
}

// hooks tell what a process does. They are called from goroutines of its own.
type hooks struct {
	line      func(line []byte)
	listening func(address string)
	exited    func(exit)
}

// start starts a child with an assignment. exited is called once if there is no error.
func (s *spawner) start(c command, a *Assignment, h hooks) (*process, error) {
	environ, err := a.environ()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(c.path, c.args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), isPrivate), environ)
	cmd.SysProcAttr = attributes(a.Outlive)
	p := &process{cmd: cmd, tail: &tail{}}
	var files pipes
	defer files.closeTheirs()
	lifeline, err := files.open(false)
	if err != nil {
		return nil, err
	}
	reports, err := files.open(true)
	if err != nil {
		return nil, errors.Join(err, files.closeOurs())
	}
	cmd.ExtraFiles = []*os.File{files.theirs[0], files.theirs[1]} // lifelineFD and reportsFD
	output, err := s.output(cmd, a, &files)
	if err == nil {
		err = s.do(cmd.Start)
	}
	if err == nil {
		p.lifeline, p.started = lifeline, time.Now()
		_, err = lifeline.WriteString(base64.StdEncoding.EncodeToString(a.secret) + "\n")
		if errors.Is(err, syscall.EPIPE) {
			err = nil // it has ended already
		}
		if err != nil {
			err = errors.Join(err, cmd.Process.Kill(), cmd.Wait())
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("supervisor: %s cannot be started: %w", a.Name, err), files.closeOurs())
	}
	s.ended.Go(func() { p.watch(output, reports, h) })
	return p, nil
}

// output says where a child writes to: a pipe, or, if it may outlive this process, a file.
func (s *spawner) output(cmd *exec.Cmd, a *Assignment, files *pipes) (ours *os.File, err error) {
	if a.Outlive {
		log, err := os.OpenFile(filepath.Join(a.StateDir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, err
		}
		files.theirs = append(files.theirs, log)
		cmd.Stdout, cmd.Stderr = log, log
		return nil, nil
	}
	if ours, err = files.open(true); err == nil {
		w := files.theirs[len(files.theirs)-1]
		cmd.Stdout, cmd.Stderr = w, w
	}
	return ours, err
}

// watch follows a process to its end.
func (p *process) watch(output, reports *os.File, h hooks) {
	var readers sync.WaitGroup
	readers.Go(func() { p.readReports(reports, h.listening) })
	if output != nil {
		readers.Go(func() {
			_ = eachLine(output, func(line []byte) { // its end, or a deadline
				p.tail.add(line)
				h.line(line)
			})
		})
	}
	err := p.cmd.Wait()
	for _, f := range []*os.File{output, reports} {
		if f != nil {
			err = errors.Join(ignoreExit(err), f.SetReadDeadline(time.Now().Add(drainTimeout)))
		}
	}
	readers.Wait()
	for _, f := range []*os.File{output, reports, p.lifeline} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	h.exited(exit{proc: p, state: p.cmd.ProcessState, err: err})
}

// ignoreExit passes over the error that only says that a process did not end with code 0.
func ignoreExit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// signal sends a signal. The process may have ended: then nothing happens.
func (p *process) signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("supervisor: signal %v to process %d: %w", sig, p.pid(), err)
	}
	return nil
}

// pipes are those between parent and child.
type pipes struct {
	ours, theirs []*os.File
}

// open makes a pipe, of which this process reads or writes.
func (p *pipes) open(read bool) (ours *os.File, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	ours, theirs := r, w
	if !read {
		ours, theirs = w, r
	}
	p.ours, p.theirs = append(p.ours, ours), append(p.theirs, theirs)
	return ours, nil
}

func (p *pipes) closeOurs() error { return closeAll(p.ours) }

// closeTheirs closes the child's ends here: it has its own.
func (p *pipes) closeTheirs() {
	_ = closeAll(p.theirs) // nothing was written through them
}

func closeAll(files []*os.File) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// isPrivate tells which variables a child does not get: the assignment of its parent, and the secret, which it gets otherwise.
func isPrivate(variable string) bool {
	return strings.HasPrefix(variable, Environment+"=") || strings.HasPrefix(variable, SecretVariable+"=")
}
