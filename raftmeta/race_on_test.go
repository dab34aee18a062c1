//go:build race

package raftmeta

// Under the race detector everything takes ten times as long.
const (
	crashSeeds = 4
	failures   = 20
)
