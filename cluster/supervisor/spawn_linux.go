package supervisor

import "syscall"

// attributes makes the child a process group of its own, so that Ctrl-C in a terminal reaches the supervisor alone, and has the
// kernel kill it when its parent dies, even if it is stopped then.
func attributes(outlive bool) *syscall.SysProcAttr {
	if outlive {
		return &syscall.SysProcAttr{Setsid: true}
	}
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
