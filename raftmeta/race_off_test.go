//go:build !race

package raftmeta

const (
	crashSeeds = 40
	failures   = 200
	openStep   = 1
	flips      = 16
	chaosSeeds = 5
	failOvers  = 8
	slow       = 1
)
