// Package outside looks at output as readers do who know nothing of the engine: it follows files as they grow, and reads streams, topics
// and tables with each system's own client. `bench latency` measures by it, and tests of the command read back by it what was shown
// while processes were killed.
//
// A [Place] is where one run of a job shows its output. It gives the sink that writes there, so that both sides are of one URL; beside
// that, nothing of the connectors is used but how they connect.
//
// # Invariants
//
//   - A record is given to [See] only when any reader of the system could have it: of a topic, only what is committed.
//   - The records of one part, which is what one sink task shows, come in the order in which the system has them, each as often as it is
//     there.
//
// # Goroutines
//
// Follow calls See from one goroutine at a time. The methods of a Place may be called from several.
package outside
