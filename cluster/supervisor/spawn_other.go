//go:build !linux

package supervisor

import "syscall"

// attributes makes the child a process group of its own, so that Ctrl-C in a terminal reaches the supervisor alone. Its lifeline
// tells it when its parent has died.
func attributes(outlive bool) *syscall.SysProcAttr {
	if outlive {
		return &syscall.SysProcAttr{Setsid: true}
	}
	return &syscall.SysProcAttr{Setpgid: true}
}
