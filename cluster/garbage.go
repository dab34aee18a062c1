package cluster

import (
	"math"
	"runtime/debug"
	"sync"
)

// garbageRoom is how many bytes of garbage a worker's process makes before it is collected, at least. Go collects when there is as much
// garbage as there is in use, and a worker with little state has a few megabytes in use: it would collect several times a second. Each
// time, all goroutines stop until the system has given a processor to every thread of the process, and where several workers share few
// processors that takes as long as a step: partitions of q8 stood still for a third longer.
const garbageRoom = 32 << 20

// ballast is memory that counts as in use and is never touched, so it takes none of the machine's.
var ballast struct {
	sync.Mutex
	users  int
	memory []byte
}

// collectLess puts the ballast on board until all who did have called the result. With a limit of memory (GOMEMLIMIT), which would count it,
// it does nothing: then garbage is collected as that asks.
func collectLess() (undo func()) {
	if debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return func() {}
	}
	ballast.Lock()
	defer ballast.Unlock()
	if ballast.users++; ballast.users == 1 {
		ballast.memory = make([]byte, garbageRoom)
	}
	return sync.OnceFunc(func() {
		ballast.Lock()
		defer ballast.Unlock()
		if ballast.users--; ballast.users == 0 {
			ballast.memory = nil
		}
	})
}
