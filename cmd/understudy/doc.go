// Command understudy runs exactly-once stream pipelines and checks their output from outside.
//
// run.go has "understudy run" and jobs.go its jobs; paced.go reads input at a pace; nexmark_jobs.go
// has the queries of Nexmark as jobs, nexmark.go their events as text. node.go starts single processes of a cluster, and
// client.go asks its coordinators; what they share with programs that embed the engine is in package console. demo.go, demoview.go and
// demoscreen.go have "understudy demo"; bench.go and benchcompare.go have "understudy bench". verify.go and verify_checks.go have "understudy verify", which shares nothing with the engine.
//
// A process of `run --workers` is this command again, with the same arguments; it becomes a worker or a coordinator in
// understudy.RunCluster.
//
// Exit codes: 0 fine, 1 the job failed or a check found violations, 2 unusable arguments or input, 3 no coordinator leads or can be
// reached, 130 interrupted.
package main
