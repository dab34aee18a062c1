// Command understudy runs exactly-once stream pipelines and checks their output from outside.
//
// run.go has "understudy run" and jobs.go its jobs; verify.go and verify_checks.go have "understudy verify", which shares
// nothing with the engine. Exit codes: 0 fine, 1 the job failed or a check found violations, 2 unusable arguments or input,
// 130 interrupted.
package main
