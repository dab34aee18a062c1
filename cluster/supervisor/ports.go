package supervisor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Ports of coordinators lie here, below those that systems hand out for outgoing connections. A coordinator that is down for a moment
// must find its port free again; and a connection to a port from which the system may also open it can end up connected to itself.
const (
	firstPort = 15000
	lastPort  = 32767
	portTries = 200
)

// A supervisor that was killed leaves coordinators that the system is about to kill. Their ports come free within moments.
const (
	portPatience = 3 * time.Second
	portPoll     = 20 * time.Millisecond
)

// awaitFree waits, not for long, until nobody listens on these addresses.
func awaitFree(ctx context.Context, addresses []string) error {
	deadline := time.Now().Add(portPatience)
	tick := time.NewTicker(portPoll)
	defer tick.Stop()
	for {
		err := taken(addresses)
		if !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}

// freeAddresses finds n addresses on this machine that nobody listens on.
func freeAddresses(host string, n int) ([]string, error) {
	var found []string
	var held []net.Listener // until all are found, so that no two are the same
	first, last := portRange()
	for try := 0; len(found) < n && try < portTries; try++ {
		address := net.JoinHostPort(host, strconv.Itoa(first+rand.IntN(last-first+1)))
		if l, err := net.Listen("tcp", address); err == nil {
			found, held = append(found, address), append(held, l)
		}
	}
	var errs []error
	for _, l := range held {
		errs = append(errs, l.Close())
	}
	if len(found) < n {
		errs = append(errs, fmt.Errorf("supervisor: no free port between %d and %d on %s after %d tries", first, last, host, portTries))
	}
	return found, errors.Join(errs...)
}

// portRange is where to look for ports.
func portRange() (first, last int) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return firstPort, lastPort // no Linux
	}
	return below(string(text))
}

// below cuts the range off where outgoing ports begin, if enough is left.
func below(outgoing string) (first, last int) {
	low, _, _ := strings.Cut(strings.TrimSpace(outgoing), "\t")
	n, err := strconv.Atoi(low)
	if err != nil || n-firstPort < portTries {
		return firstPort, lastPort
	}
	return firstPort, min(lastPort, n-1)
}

// taken tells which of these addresses cannot be listened on.
func taken(addresses []string) error {
	var errs []error
	for _, a := range addresses {
		l, err := net.Listen("tcp", a)
		if err == nil {
			err = l.Close()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
