package supervisor

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/understudy-stream/understudy/cluster"
)

// Exit codes of a child.
const (
	exitFailed = 1
	exitOrphan = 3 // its parent has died
)

// maxReportedError bounds the text of an error in a report.
const maxReportedError = 8 << 10

// Classes tells errors apart. An error that is none of these may be another one next time.
type Classes struct {
	Stopped []error // the cluster was told to stop
	Drained []error // this worker was told to leave
	Final   []error // it would end the same way again
}

// Serve does the work of the assignment in this process and ends it. It does not return: what the program would do when the
// call comes back, such as removing directories, is the parent's affair.
func (a *Assignment) Serve(c Classes, work func(context.Context, cluster.NodeOptions) error) {
	os.Exit(a.serve(c, work))
}

func (a *Assignment) serve(c Classes, work func(context.Context, cluster.NodeOptions) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := a.watchParent()
	var o cluster.NodeOptions
	if err == nil {
		o, err = a.options()
	}
	if err == nil {
		err = work(ctx, o)
	}
	e := &ended{Kind: c.kind(err)}
	if err != nil {
		e.Error = err.Error()
		e.Error = strings.ToValidUTF8(e.Error[:min(len(e.Error), maxReportedError)], "")
	}
	a.report(report{Ended: e})
	switch e.Kind {
	case kindFinished, kindStopped, kindDrained:
		return 0
	}
	return exitFailed
}

// options are those of a process of the cluster. What it logs is passed on by the parent's logger.
func (a *Assignment) options() (cluster.NodeOptions, error) {
	credentials := a.credentials()
	security, err := credentials.Security()
	return cluster.NodeOptions{
		Cluster: a.Cluster, Listen: a.Listen, StateDir: a.StateDir, Coordinators: a.Coordinators, Security: security,
		Logger:    slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: a.Level})),
		Listening: func(address string) { a.report(report{Listening: address}) },
	}, err
}

// watchParent reads the cluster's secret and from then on ends this process when the parent has ended.
func (a *Assignment) watchParent() error {
	r := bufio.NewReader(a.lifeline)
	line, err := r.ReadString('\n')
	if err == nil {
		a.secret, err = base64.StdEncoding.DecodeString(strings.TrimSuffix(line, "\n"))
	}
	if err != nil {
		return fmt.Errorf("supervisor: %s cannot read the cluster's secret from its parent: %w", a.Name, err)
	}
	if !a.Outlive {
		go func() {
			_, _ = io.Copy(io.Discard, r) // returns when the parent has ended, whatever it says
			os.Exit(exitOrphan)
		}()
	}
	return nil
}

// report tells the parent something. A parent that is gone does not want to know.
func (a *Assignment) report(r report) {
	line, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("supervisor: assertion failed: a report cannot be encoded: %v", err))
	}
	_, _ = a.reports.Write(append(line, '\n'))
}

func (c *Classes) kind(err error) kind {
	is := func(list []error) bool {
		for _, e := range list {
			if errors.Is(err, e) {
				return true
			}
		}
		return false
	}
	switch {
	case err == nil:
		return kindFinished
	case is(c.Stopped):
		return kindStopped
	case is(c.Drained):
		return kindDrained
	case errors.Is(err, syscall.EADDRINUSE):
		return kindInUse
	case is(c.Final):
		return kindFinal
	default:
		return kindFailure
	}
}
