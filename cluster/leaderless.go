package cluster

import "time"

const (
	// noLeaderNotice is how long a process looks for a leader before it says that there is none. The data plane goes on meanwhile.
	noLeaderNotice = 5 * time.Second
	// noLeaderAgain is when it says so again, unless there is one by then.
	noLeaderAgain = time.Minute
)

// leaderless decides when a process says that no coordinator leads: not at once, for another may be elected, and not all the time.
type leaderless struct {
	since time.Time // zero: somebody leads
	said  time.Time
}

// due tells whether it is to be said now.
func (l *leaderless) due(leads bool, now time.Time) bool {
	switch {
	case leads:
		*l = leaderless{}
		return false
	case l.since.IsZero():
		l.since = now
	}
	pause, from := noLeaderNotice, l.since
	if !l.said.IsZero() {
		pause, from = noLeaderAgain, l.said
	}
	if now.Sub(from) < pause {
		return false
	}
	l.said = now
	return true
}
