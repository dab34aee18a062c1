package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
)

// Environment variables.
const (
	Environment    = "UNDERSTUDY_ASSIGNMENT" // in which a child process finds its assignment
	SecretVariable = "UNDERSTUDY_SECRET"     // in which commands look for the cluster's secret
)

// Role is what a process of a cluster does.
type Role string

// The roles.
const (
	Coordinator Role = "coordinator"
	Worker      Role = "worker"
)

// The file descriptors of a child process that its parent holds the other ends of.
const (
	lifelineFD = 3 // the child reads the secret, and then the end of its parent
	reportsFD  = 4 // the child writes reports
)

// Assignment is what a child process is to be. It is the same for every life of the process.
type Assignment struct {
	Role         Role       `json:"role"`
	Name         string     `json:"name"` // "worker-0"
	Job          string     `json:"job"`
	Call         int        `json:"call"` // which call for a job of this name it is, from 0
	Cluster      string     `json:"cluster"`
	Listen       string     `json:"listen"`
	Coordinators []string   `json:"coordinators"`
	StateDir     string     `json:"state_dir"`
	Workers      int        `json:"workers"` // with which the job begins
	CA           string     `json:"ca,omitempty"`
	Certificate  string     `json:"certificate,omitempty"`
	Key          string     `json:"key,omitempty"`
	Outlive      bool       `json:"outlive,omitempty"` // go on when the parent is gone
	Level        slog.Level `json:"level"`

	secret   []byte
	lifeline *os.File
	reports  *os.File
}

// inherited is the assignment of this process. It is read when the program starts, so that no process that user code starts
// takes it for its own.
var inherited, errInherited = inherit()

// Assigned returns the assignment of this process, nil if nobody gave it one.
func Assigned() (*Assignment, error) { return inherited, errInherited }

func inherit() (*Assignment, error) {
	text, ok := os.LookupEnv(Environment)
	if !ok {
		return nil, nil
	}
	err := os.Unsetenv(Environment)
	syscall.CloseOnExec(lifelineFD)
	syscall.CloseOnExec(reportsFD)
	a, perr := parseAssignment(text)
	if err = errors.Join(err, perr); err != nil {
		return nil, err
	}
	a.lifeline, a.reports = os.NewFile(lifelineFD, "lifeline"), os.NewFile(reportsFD, "reports")
	return a, nil
}

func parseAssignment(text string) (*Assignment, error) {
	a := &Assignment{}
	if err := json.Unmarshal([]byte(text), a); err != nil {
		return nil, fmt.Errorf("supervisor: the environment variable %s, by which a process starts itself again, cannot be read: %w", Environment, err)
	}
	if a.Role != Coordinator && a.Role != Worker {
		return nil, fmt.Errorf("supervisor: the environment variable %s names the unknown role %q", Environment, a.Role)
	}
	return a, nil
}

// environ is the environment of a child.
func (a *Assignment) environ() (string, error) {
	text, err := json.Marshal(a)
	if err != nil {
		return "", fmt.Errorf("supervisor: assignment of %s: %w", a.Name, err)
	}
	return Environment + "=" + string(text), nil
}

// credentials are those of the whole cluster.
func (a *Assignment) credentials() Credentials {
	return Credentials{Secret: a.secret, CA: a.CA, Certificate: a.Certificate, Key: a.Key}
}

// report is what a child tells its parent, a line of JSON each.
type report struct {
	Listening string `json:"listening,omitempty"`
	Ended     *ended `json:"ended,omitempty"`
}

// ended is how a child's work ended, as far as it could still tell.
type ended struct {
	Error string `json:"error,omitempty"` // empty: the job is done
	Kind  kind   `json:"kind"`
}

// kind says what an end means to the supervisor.
type kind string

const (
	kindFinished kind = "finished" // the job is done
	kindStopped  kind = "stopped"  // the cluster was told to stop
	kindDrained  kind = "drained"  // this worker was told to leave
	kindInUse    kind = "in use"   // the address to listen on is taken
	kindFinal    kind = "final"    // it would end the same way again
	kindFailure  kind = "failure"  // it may go better next time
)
