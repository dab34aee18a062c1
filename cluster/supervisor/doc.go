// Package supervisor runs a whole cluster on one machine: it starts the program that it is part of again, as coordinators and
// workers, starts those that die once more, and kills, stops and cuts them off at random if it is asked to.
//
// It stands beside a record's way, not on it. What it knows of the job it learns as any client does, by asking the coordinators
// for their status; a job goes on just as well without it, in processes that somebody else starts.
//
// A child is the same binary with the same arguments and an [Assignment] in its environment. The program runs as always until it
// reaches the call that the parent has made; there it becomes what the assignment says ([Assignment.Serve]). Parent and child share
// two pipes. On the first the child reads the cluster's secret and then waits for its end, which comes when the parent dies,
// however it dies. On the second it reports where it listens and how it ended. What it writes to standard output and standard
// error the parent passes on through its logger.
//
// Invariants:
//   - the cluster's secret is in no argument, environment variable or log line;
//   - one goroutine, that of [Run], owns all that the supervisor knows; others only send it events;
//   - Run returns when every child has ended and every goroutine with it.
package supervisor
