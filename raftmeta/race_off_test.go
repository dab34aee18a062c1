//go:build !race

package raftmeta

const (
	crashSeeds = 40
	failures   = 200
)
