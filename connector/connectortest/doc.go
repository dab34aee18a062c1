// Package connectortest is the conformance suite of connectors: what operator.CausalSink, operator.CausalStore, operator.Source
// and operator.Reader promise to the engine, as tests that any implementation must pass.
//
// A connector calls it from a test of its own. It says how to make an empty place to write to and how an outside reader sees
// what is there:
//
//	func TestConforms(t *testing.T) {
//		connectortest.CausalSink(t, func(t testing.TB) connectortest.CausalPlace {
//			dir := t.TempDir()
//			return connectortest.CausalPlace{
//				Sink: func() operator.CausalSink { return mysink.New(dir) },
//				Read: func(task int) []string { return linesOf(dir, task) },
//			}
//		})
//	}
//
// The suite plays the engine: it starts processes, kills them between any two calls, and lets dead ones go on. With
// CausalPlace.Faulty it also kills them within calls. What it asks for beyond that is the contract alone, nothing of how an
// implementation keeps it.
//
// It is a package for tests: importing it brings the flags of pgregory.net/rapid, such as -rapid.checks and -rapid.seed, which
// say how many random sequences of calls are tried and repeat one that failed.
//
// Goroutines: a suite runs on its test's goroutine, and calls Sink, Read and the functions of a source's place from it alone. The
// sinks, stores, sources and readers themselves are called from several goroutines, as far as their contracts allow it.
package connectortest
