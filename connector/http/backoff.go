package http

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// backoff spaces tries: the n-th wait is drawn between zero and first·2ⁿ, at most longest ("full jitter", Brooker, "Exponential Backoff and
// Jitter", AWS Architecture Blog, 2015), so that those who failed together do not come again together.
type backoff struct {
	first, longest time.Duration
	tries          int
}

func (b *backoff) reset() { b.tries = 0 }

// next draws the next wait.
func (b *backoff) next() time.Duration {
	limit := b.longest
	if b.tries < 32 && b.first<<b.tries < limit && b.first<<b.tries > 0 {
		limit = b.first << b.tries
	}
	b.tries++
	return rand.N(limit + 1)
}

// pause waits for d, or until ctx ends or wake gets something; then it is false.
func pause(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-wake:
	case <-ctx.Done():
	}
	return false
}

// retryAfter reads a Retry-After header: seconds, or a date.
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now)), true
	}
	return 0, false
}
