package mutation

import "context"

type contextKey struct{}

// NewContext returns a context in which jobs run with the mutations of s. Tests of the whole command use it; nobody outside
// this module can import the package, so no user can.
func NewContext(ctx context.Context, s Set) context.Context {
	return context.WithValue(ctx, contextKey{}, s)
}

// FromContext is the set that NewContext put into ctx, empty if there is none.
func FromContext(ctx context.Context) Set {
	s, _ := ctx.Value(contextKey{}).(Set)
	return s
}
