//go:build race

package raftmeta

// Under the race detector everything takes ten times as long.
const (
	crashSeeds = 4
	failures   = 20
	openStep   = 8
	flips      = 4
	chaosSeeds = 1
	failOvers  = 2
	slow       = 4 // factor of timeouts in real time
)
